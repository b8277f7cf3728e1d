"""A request to a model as one value: its bytes, its raw members and the fields that the gateway reads.

Decoded once, when the body is complete. What rewrites a request (a prompt version, a guardrail) makes a new value by
`with_members`, so that the three always agree.
"""

from collections.abc import Mapping

import msgspec

from quarterdeck.errors import BadRequestError
from quarterdeck.inference.call import Operation
from quarterdeck.protocol import requests
from quarterdeck.protocol.absent import NULL, has_absent, without_absent
from quarterdeck.protocol.legacy_functions import with_tools
from quarterdeck.protocol.requests import AnyRequest, GenerationRequest
from quarterdeck.protocol.stream_usage import includes_usage

TYPES: dict[Operation, type[AnyRequest]] = {
    Operation.CHAT: requests.ChatCompletionRequest,
    Operation.COMPLETIONS: requests.CompletionRequest,
    Operation.EMBEDDINGS: requests.EmbeddingRequest,
    Operation.TOKENIZE: requests.TokenizeRequest,
    Operation.DETOKENIZE: requests.DetokenizeRequest,
    Operation.SCORE: requests.ScoreRequest,
    Operation.CLASSIFY: requests.ClassifyRequest,
}


_WITH_MESSAGES = (requests.ChatCompletionRequest, requests.TokenizeRequest)
_CALLING = frozenset((Operation.CHAT, Operation.TOKENIZE))


class PromptUse(msgspec.Struct, frozen=True):
    """The version of a prompt that a request was rendered from."""

    name: str
    version: str
    """Its number."""
    label: str | None
    """The label that led to it. None: the request named the version."""

    @property
    def text(self) -> str:
        return f"{self.name}@{self.version}"


class InferenceRequest(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A decoded request, as the client sent it or as it was rewritten since."""

    operation: Operation
    body: bytes
    parsed: AnyRequest
    """The fields that decide something in the gateway."""
    members: dict[str, msgspec.Raw]
    """All members of the body, as raw JSON."""
    is_streaming: bool
    """The client asked for a stream."""
    has_parts: bool
    """A message's content is a list: it may have pictures, audio and files."""
    shows_usage: bool
    """The client asked for the usage of a stream."""
    prompt: PromptUse | None = None
    calls_functions: bool = False
    """The client sent `functions`, the first form of tools: it expects a `function_call`."""

    def with_members(self, changed: Mapping[str, object]) -> "InferenceRequest":
        """A request with some members set; the others stay byte for byte. Raises BadRequestError for a wrong type."""
        raw = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in changed.items()}
        members = {**self.members, **raw}
        made = _request(self.operation, msgspec.json.encode(members), members)
        return msgspec.structs.replace(made, prompt=self.prompt, calls_functions=self.calls_functions)


def decode(operation: Operation, body: bytes) -> InferenceRequest:
    """Without members that OpenAI takes for absent, and with `functions` as `tools`. Raises BadRequestError naming the
    field (`param`) and the cause (`code`)."""
    try:
        request = _request(operation, body, None)
    except BadRequestError as error:
        if error.code == "too_many_parameters":
            raise
        if body.startswith(requests.BOM):
            return decode(operation, body[len(requests.BOM) :])
        # A null or a `function_call` in a message. Looking for one in each body would cost more than decoding it.
        rewritten = _rewritten(operation, requests.members(body))
        if rewritten is None:
            raise
        return rewritten
    members = request.members
    if "functions" in members or "function_call" in members:
        return _rewritten(operation, members) or request
    if (NULL in members.values() or "tools" in members) and has_absent(members):
        return _rewritten(operation, members) or request
    return request


def _rewritten(operation: Operation, members: dict[str, msgspec.Raw]) -> InferenceRequest | None:
    """Without absent members, and in today's form. None: nothing changes, or the messages have another shape or are no
    UTF-8."""
    try:
        found = without_absent(members)
        calls_functions = operation in _CALLING and "functions" in found
        if operation in _CALLING:
            found = with_tools(found)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    body = msgspec.json.encode(found)
    if body == msgspec.json.encode(members):
        return None
    made = _request(operation, body, found)
    return msgspec.structs.replace(made, calls_functions=True) if calls_functions else made


def _request(operation: Operation, body: bytes, members: dict[str, msgspec.Raw] | None) -> InferenceRequest:
    parsed: AnyRequest = requests.decode(body, TYPES[operation])
    if members is None:
        members = requests.members(body)
    is_streaming = isinstance(parsed, GenerationRequest) and bool(parsed.stream)
    has_parts = False
    if isinstance(parsed, _WITH_MESSAGES):
        for message in parsed.messages or ():
            if type(message.content) is list:
                has_parts = True
                break
    shows_usage = is_streaming and includes_usage(parsed)
    return InferenceRequest(operation, body, parsed, members, is_streaming, has_parts, shows_usage)
