"""OpenAI's requests, typed where we read them; all else passes untouched.

A body is decoded twice, each time in a microsecond or two: once into the few fields that decide something here, and
once into raw members, so that what must not change on its way goes on byte for byte.
"""

import re
from typing import Annotated, Any

import msgspec

from quarterdeck.errors import BadRequestError

Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
"""A number of tokens or choices. A negative one would pass under every limit, and some engines read it as "endless"."""
COMPLETION_MAX_TOKENS = 16
"""OpenAI's `max_tokens` of a completion that sets none. A chat has no such default."""
Seed = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""What an engine and a database can hold."""


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
    max_tokens: Count | None = None
    n: Count | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: Seed | None = None


class ChatCompletion(Generation, frozen=True, kw_only=True):
    messages: list[Message]
    max_completion_tokens: Count | None = None
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


def choice_count(request: AnyRequest) -> int:
    """How many choices the answer to this request has."""
    if not isinstance(request, Generation):
        return 1
    prompts = 1
    if isinstance(request, Completion) and isinstance(request.prompt, list):
        # A list of integers is one prompt, given as tokens.
        prompts = 1 if request.prompt and isinstance(request.prompt[0], int) else len(request.prompt)
    return (request.n or 1) * prompts


_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_MISSING = "Object missing required field `"
_MEMBER = re.compile(rb'[{,\s]*"([^"\\]*(?:\\.[^"\\]*)*)"\s*:\s*')


def decode(body: bytes, kind: type[msgspec.Struct]) -> Any:
    """The fields that we read, as `kind`. Raises BadRequestError naming the field (`param`) and the cause (`code`)."""
    try:
        if not body.isascii():
            body.decode()  # what is skipped over is not looked into, and must be UTF-8 as well
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _refusal(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_json(error) from error


def _not_json(error: Exception) -> BadRequestError:
    return BadRequestError(f"We could not parse the JSON body of your request: {error}", code="invalid_json")


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
    for sign, code in ((" >= ", "integer_below_min_value"), (" <= ", "integer_above_max_value")):
        if sign in reason:
            return BadRequestError(f"Invalid value for '{path}': {reason}.", param=path, code=code)
    return BadRequestError(f"Invalid type for '{path}': {reason}.", param=path, code="invalid_type")


def members(body: bytes) -> dict[str, msgspec.Raw]:
    """The body's members, each as raw JSON. Raises BadRequestError where one of them is given twice.

    Two readers of one body could each take another of two equal members, so it is refused. That is said of the body's
    own members, which decide here; deeper ones are the engine's alone to read, and every reader there takes the last.
    Where the JSON is compact, the members' lengths add up to the body's and nothing is left over for a second one; only
    otherwise are they looked for one after the other.
    """
    try:
        found = _MEMBERS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_json(error) from error
    size = 1 + len(b"".join(found.values())) + len("".join(found)) + 4 * len(found)
    if size != len(body) and (twice := _repeated(body, found)) is not None:
        raise BadRequestError(
            f"The parameter '{twice}' is given more than once.", param=twice, code="duplicate_parameter"
        )
    return found


def _repeated(body: bytes, found: dict[str, msgspec.Raw]) -> str | None:
    """The name of a member that is there twice.

    `found` holds every name once, in the order in which they first came, with the value that came last. So the body
    is these members one after the other, and nothing else, exactly where none is repeated.
    """
    at, name = 0, ""
    for expected, raw in found.items():
        member = _MEMBER.match(body, at)
        if member is None:  # the value before only began like the one that was found last
            return name
        name = msgspec.json.decode(b'"' + member[1] + b'"', type=str)
        if name != expected or not body.startswith(bytes(raw), member.end()):
            return name
        at = member.end() + len(memoryview(raw))
    if (surplus := _MEMBER.match(body, at)) is not None:
        return msgspec.json.decode(b'"' + surplus[1] + b'"', type=str)
    return None if body[at:].strip(b" \t\r\n{") == b"}" else name


def with_members(found: dict[str, msgspec.Raw], changed: dict[str, object]) -> bytes:
    """The body with some members set; the others go on byte for byte."""
    return msgspec.json.encode({**found, **changed})
