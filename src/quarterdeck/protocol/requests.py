"""OpenAI's requests, typed where we read them; all else passes untouched.

A body is decoded twice, each time in a microsecond or two: once into the few fields that decide something here, and,
where something must be changed on its way, once into raw members, so that the rest goes on byte for byte.
"""

import json
from typing import Any

import msgspec

from quarterdeck.errors import BadRequestError


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class Message(msgspec.Struct, frozen=True):
    role: str
    content: str | list[dict[str, Any]] | None = None


class Request(msgspec.Struct, frozen=True):
    """What every request to a model has."""

    model: str
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, Any] | None = None


class Generation(Request, frozen=True):
    """What chat and completions share."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None


class ChatCompletion(Generation, frozen=True, kw_only=True):
    messages: list[Message]
    max_completion_tokens: int | None = None
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    stop: str | list[str] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None


class Completion(Generation, frozen=True, kw_only=True):
    prompt: str | list[Any]
    stop: str | list[str] | None = None
    logprobs: int | None = None
    echo: bool | None = None


class Embedding(Request, frozen=True, kw_only=True):
    input: str | list[Any]
    encoding_format: str | None = None
    dimensions: int | None = None


class Tokenize(Request, frozen=True, kw_only=True):
    prompt: str | None = None
    messages: list[Message] | None = None


class Detokenize(Request, frozen=True, kw_only=True):
    tokens: list[int]


class Score(Request, frozen=True, kw_only=True):
    pass


AnyRequest = ChatCompletion | Completion | Embedding | Tokenize | Detokenize | Score

_MISSING = "Object missing required field `"


def decode(body: bytes, kind: type[msgspec.Struct]) -> Any:
    """The fields that we read, as `kind`. Raises BadRequestError naming the field (`param`) and the cause (`code`)."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _refusal(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(
            f"We could not parse the JSON body of your request: {error}", code="invalid_json"
        ) from error


def _refusal(problem: str) -> BadRequestError:
    """msgspec says `Expected `int`, got `str` - at `$.max_tokens``; OpenAI says which param."""
    reason, _, where = problem.partition(" - at `$")
    path = where.rstrip("`").lstrip(".").replace("[...]", "[]")
    if reason.startswith(_MISSING):
        field = reason.removeprefix(_MISSING).rstrip("`")
        param = f"{path}.{field}" if path else field
        return BadRequestError(
            f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
        )
    if not path:
        return BadRequestError(f"The body must be a JSON object: {reason}.", code="invalid_json")
    return BadRequestError(f"Invalid type for '{path}': {reason}.", param=path, code="invalid_type")


def members(body: bytes) -> dict[str, msgspec.Raw]:
    """The body's members, each as raw JSON. Raises BadRequestError where a name is given twice.

    Two readers of one body could each take another of two equal members; so it is refused. Where the JSON is compact,
    as every SDK writes it, the members' lengths add up to the body's and nothing is left over for a second one; only
    otherwise is the body read again, slowly.
    """
    try:
        found = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(
            f"We could not parse the JSON body of your request: {error}", code="invalid_json"
        ) from error
    size = 1 + sum([len(name) + len(memoryview(raw)) + 4 for name, raw in found.items()])
    if size != len(body):
        try:
            json.loads(body, object_pairs_hook=_without_duplicates)
        except RecursionError as error:
            raise BadRequestError("The JSON body is nested too deeply.", code="invalid_json") from error
    return found


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    whole = dict(pairs)
    if len(whole) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRequestError(
            f"The parameter '{twice}' is given more than once.", param=twice, code="duplicate_parameter"
        )
    return whole


def with_members(found: dict[str, msgspec.Raw], changed: dict[str, object]) -> bytes:
    """The body with some members set; the others go on byte for byte."""
    return msgspec.json.encode({**found, **changed})
