"""OpenAI's requests: the fields that the gateway reads. All others pass through unchanged.

A body is decoded twice, each time in a microsecond or two: into the fields that the gateway needs, and into raw
members, so that what does not change is forwarded byte for byte.
"""

import re
from typing import Annotated, Any

import msgspec

from quarterdeck.errors import BadRequestError

Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
"""A number of tokens or choices. A negative one would pass every limit, and some engines take it as unlimited."""
Least = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
"""A count of which OpenAI refuses 0: engines differ in whether it is none or no limit."""
MAX_MEMBERS = 1000
"""Of a request. They are compared one by one, which blocks all other requests: OpenAI and vLLM know a tenth of them."""
MAX_ITEMS = 20_000
"""Messages, content parts or items of a request. Each costs the gateway a microsecond or two, and a body has room for
two million empty ones. OpenAI takes 2,048 messages and inputs."""
COMPLETION_MAX_TOKENS = 16
"""OpenAI's `max_tokens` of a completion that sets none. A chat has no such default."""
BOM = b"\xef\xbb\xbf"
"""The byte order mark that writers of .NET and PowerShell put before UTF-8: skipped where a body can't be decoded."""
Seed = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""The range of engines and databases."""


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


NotNull = bool | int | float | str | list[Any] | dict[str, Any] | msgspec.UnsetType
"""A field that nothing here reads, of any type but null: a null is found by msgspec (`inference.request.decode`)."""


class CalledFunction(msgspec.Struct, frozen=True):
    arguments: str | msgspec.UnsetType = msgspec.UNSET


class ToolCall(msgspec.Struct, frozen=True):
    """Only what vLLM refuses without naming its place."""

    function: CalledFunction | msgspec.UnsetType = msgspec.UNSET


class Message(msgspec.Struct, frozen=True):
    role: str
    content: str | list[dict[str, Any]] | None = None
    name: NotNull = msgspec.UNSET
    tool_calls: list[ToolCall] | msgspec.UnsetType = msgspec.UNSET
    tool_call_id: NotNull = msgspec.UNSET
    function_call: msgspec.UnsetType = msgspec.UNSET
    """Of no type: a message with one is found by msgspec, and translated (`legacy_functions`)."""
    refusal: NotNull = msgspec.UNSET
    audio: NotNull = msgspec.UNSET
    annotations: NotNull = msgspec.UNSET
    reasoning: NotNull = msgspec.UNSET
    reasoning_content: NotNull = msgspec.UNSET


class Request(msgspec.Struct, frozen=True):
    """Fields of every request to a model."""

    model: str
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, Any] | None = None


class GenerationRequest(Request, frozen=True):
    """Fields common to chat and completions."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    n: Count | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: Seed | None = None


class ChatCompletionRequest(GenerationRequest, frozen=True, kw_only=True):
    messages: list[Message]
    max_tokens: Least | None = None
    max_completion_tokens: Least | None = None
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    stop: str | list[str] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None


class CompletionRequest(GenerationRequest, frozen=True, kw_only=True):
    prompt: str | list[Any]
    stop: str | list[str] | None = None
    logprobs: int | None = None
    echo: bool | None = None
    best_of: Count | None = None


class EmbeddingRequest(Request, frozen=True, kw_only=True):
    input: str | list[Any]
    encoding_format: str | None = None
    dimensions: int | None = None


class ClassifyRequest(EmbeddingRequest, frozen=True, kw_only=True):
    """The input of a classifier has the forms of an embedding's."""


class TokenizeRequest(Request, frozen=True, kw_only=True):
    prompt: str | None = None
    messages: list[Message] | None = None


class DetokenizeRequest(Request, frozen=True, kw_only=True):
    tokens: list[int]


class ScoreRequest(Request, frozen=True, kw_only=True):
    pass


class MediaRequest(Request, frozen=True):
    """Of audio or images (`media_requests`)."""


AnyRequest = (
    ChatCompletionRequest
    | CompletionRequest
    | EmbeddingRequest
    | TokenizeRequest
    | DetokenizeRequest
    | ScoreRequest
    | MediaRequest
)


def choice_count(request: AnyRequest) -> int:
    """How many choices the answer to this request has."""
    if not isinstance(request, GenerationRequest):
        return 1
    prompts = 1
    if isinstance(request, CompletionRequest) and isinstance(request.prompt, list):
        # A list of integers is one prompt, given as tokens.
        prompts = 1 if request.prompt and isinstance(request.prompt[0], int) else len(request.prompt)
    return (request.n or 1) * prompts


_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_TRUNCATED = "Input data was truncated"
_MISSING = "Object missing required field `"
_MISMATCH = re.compile(r"Expected `([^`]+)`, got `([^`]+)`")
_BOUND = re.compile(r"Expected `int` (>=|<=) (-?\d+)")
_MEMBER = re.compile(rb'[{,\s]*"([^"\\]*(?:\\.[^"\\]*)*)"\s*:\s*')
_HIGH = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}")
_LOW = re.compile(rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}")
"""Escapes in JSON that are half of a character."""
_AT = re.compile(r"(?:surrogate|hex escape).*\(byte (\d+)\)")
"""Where msgspec found one half without the other."""
_TYPES = {
    "str": "a string",
    "int": "an integer",
    "float": "a decimal",
    "bool": "a boolean",
    "array": "an array",
    "object": "an object",
}
"""OpenAI's names for msgspec's types."""


def decode(body: bytes, kind: type[msgspec.Struct]) -> Any:
    """Decode the fields of `kind`. Raises BadRequestError naming the field (`param`) and the cause (`code`)."""
    try:
        if not body.isascii():
            body.decode()  # msgspec does not validate the UTF-8 of fields that it skips
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _invalid_field(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _invalid_json(error, body) from error


def _invalid_json(error: Exception, body: bytes) -> BadRequestError:
    problem = str(error)
    if b"\0" in body[:4]:
        problem = "it is UTF-16 or UTF-32. Encode it as UTF-8."
    elif isinstance(error, UnicodeDecodeError):
        problem = f"it is not valid UTF-8 (byte {error.start}). Encode it as UTF-8."
    elif not body.strip():
        problem = "it is empty."
    if (lone := _lone_surrogate(error, body)) is not None:
        return BadRequestError(
            f"We could not parse the JSON body of your request: it has a lone surrogate ({lone}), which is no "
            "character. Encode a character outside of the basic plane as two escapes, or as UTF-8.",
            code="invalid_json",
        )
    return BadRequestError(f"We could not parse the JSON body of your request: {problem}", code="invalid_json")


def _lone_surrogate(error: Exception, body: bytes) -> str | None:
    """The escape of half a character at which decoding failed. Only there is it looked for: a body may have millions of
    escapes."""
    message = str(error)
    if (found := _AT.search(message)) is not None:
        end = int(found[1])
        places = [end - 12, *range(end - 6, end - 9, -1)]  # before another escape, or right before the error
    elif message == _TRUNCATED:
        places = [len(body) - back for back in range(6, 12) if not _is_escaped(body, len(body) - back)]
    else:
        return None
    for at in places:
        if at < 0:
            continue
        high = _HIGH.match(body, at)
        if high is not None and _LOW.match(body, high.end()) is None:
            return high[0].decode()
        if high is None and at != places[0] and (low := _LOW.match(body, at)) is not None:
            return low[0].decode()
    return None


def _is_escaped(body: bytes, at: int) -> bool:
    """Whether the character at this place follows a backslash that is not escaped itself."""
    before = body[max(at - 64, 0) : max(at, 0)]
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 1


def _invalid_field(problem: str) -> BadRequestError:
    """OpenAI's error for msgspec's message, such as "Expected `int | null`, got `str` - at `$.max_tokens`"."""
    reason, _, where = problem.partition(" - at `$")
    path = where.rstrip("`").lstrip(".").replace("[...]", "[]")
    if reason.startswith(_MISSING):
        field = reason.removeprefix(_MISSING).rstrip("`")
        param = f"{path}.{field}" if path else field
        return BadRequestError(
            f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
        )
    if (mismatch := _MISMATCH.fullmatch(reason)) is not None:
        reason = f"expected {_expected(mismatch[1])}, but got {_TYPES.get(mismatch[2], mismatch[2])} instead"
    if not path:
        return BadRequestError(f"Invalid request body: {reason}.", code="invalid_json")
    if (bound := _BOUND.fullmatch(reason)) is not None:
        side, name = ("below minimum", "below_min") if bound[1] == ">=" else ("above maximum", "above_max")
        message = f"Invalid '{path}': integer {side} value. Expected a value {bound[1]} {bound[2]}."
        return BadRequestError(message, param=path, code=f"integer_{name}_value")
    return BadRequestError(
        f"Invalid type for '{path}': {reason[0].lower()}{reason[1:]}.", param=path, code="invalid_type"
    )


def _expected(types: str) -> str:
    """An optional field's null is not mentioned: OpenAI's messages don't either."""
    names = [_TYPES.get(name, name) for name in types.split(" | ") if name != "null"]
    return names[0] if len(names) == 1 else f"one of {' or '.join(names)}"


def members(body: bytes) -> dict[str, msgspec.Raw]:
    """The body's top-level members as raw JSON. Raises BadRequestError if one of them is repeated.

    The gateway and the engine could each read a different one of two members, so a repeated one is refused. This holds
    for the top level, which the gateway decides by; messages with content parts are compared in `repeated`. In compact
    JSON the members' lengths add up to the body's, which leaves no room for another one; only if they don't are they
    compared one by one.
    """
    try:
        found = _decode_members(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _invalid_json(error, body) from error
    if len(found) > MAX_MEMBERS:
        raise BadRequestError(
            f"The request has {len(found)} parameters, more than the maximum of {MAX_MEMBERS}.",
            code="too_many_parameters",
        )
    size = 1 + len(b"".join(found.values())) + len("".join(found)) + 4 * len(found)
    if size != len(body) and (name := _repeated(body, found)) is not None:  # as `first_repeated`
        raise BadRequestError(f"Duplicate parameter: '{name}'.", param=name, code="duplicate_parameter")
    return found


def decode_value(raw: msgspec.Raw) -> Any:
    """A member's value. Raises BadRequestError where it is nested too deeply."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _invalid_json(error, bytes(raw)) from error


def too_many(what: str, count: int) -> BadRequestError:
    """The error for more than MAX_ITEMS."""
    return BadRequestError(
        f"Invalid '{what}': array too long. Expected an array with maximum length {MAX_ITEMS}, but got an array with "
        f"length {count} instead.",
        param=what,
        code="array_above_max_length",
    )


def has_any(value: object, kind: type) -> bool:
    """Whether a value of this type is in a JSON value, at any depth. Without recursion: a client chooses the depth."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, kind):
            return True
        if isinstance(each, dict):
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
    return False


def first_repeated(body: bytes | msgspec.Raw, found: dict[str, msgspec.Raw]) -> str | None:
    """The name of a member that the object `body` has twice; `found` is what was decoded of it."""
    size = 1 + len(b"".join(found.values())) + len("".join(found)) + 4 * len(found)
    return None if size == memoryview(body).nbytes else _repeated(bytes(body), found)


def _repeated(body: bytes, found: dict[str, msgspec.Raw]) -> str | None:
    """The name of a repeated member.

    `found` has each name once, in the order of first occurrence, with the value of the last one. So no member is
    repeated exactly if the body is these members in this order and nothing else.
    """
    at, name = 0, ""
    for expected, raw in found.items():
        member = _MEMBER.match(body, at)
        if member is None:  # the previous value only starts like the one that was found last
            return name
        name = msgspec.json.decode(b'"' + member[1] + b'"', type=str)
        if name != expected or not body.startswith(bytes(raw), member.end()):
            return name
        at = member.end() + len(memoryview(raw))
    if (surplus := _MEMBER.match(body, at)) is not None:
        return msgspec.json.decode(b'"' + surplus[1] + b'"', type=str)
    return None if body[at:].strip(b" \t\r\n{") == b"}" else name


def with_model(body: bytes, name: str) -> bytes:
    """The body for the model that a path names. Raises BadRequestError for a body that is not an object.

    As at Azure the body's own model does not count: clients put any name there, such as LangChain's
    `text-embedding-ada-002` for a deployment of another model.
    """
    found = members(body)
    raw = found.get("model")
    if raw is not None and bytes(raw) == msgspec.json.encode(name):
        return body
    return with_members(found, {"model": name})


def with_members(found: dict[str, msgspec.Raw], changed: dict[str, object]) -> bytes:
    """The body with some members set. The others stay byte for byte."""
    return msgspec.json.encode({**found, **changed})
