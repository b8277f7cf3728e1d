"""A request that names a prompt becomes the request that the prompt's version makes of it.

Done once, before anything else looks at the request: routing, estimate, limits, cache and engine see the rendered body.
The request goes first: what it sets itself (a parameter, `response_format`, `tools`, a model) is kept, and the version
gives the rest. Its messages follow the version's.
"""

import asyncio
from collections.abc import Callable, Mapping
from random import random as unseeded
from typing import Any

import msgspec

from quarterdeck.errors import BadRequestError
from quarterdeck.inference.call import Head, Operation
from quarterdeck.inference.prompts.catalogue import KnownPrompt, PromptCatalogue
from quarterdeck.inference.prompts.reference import Reference, read_reference
from quarterdeck.inference.request import InferenceRequest, PromptUse, decode
from quarterdeck.protocol import requests
from quarterdeck.settings.prompts import MODEL_PREFIX, PromptSpec
from quarterdeck.templating.errors import RenderError
from quarterdeck.templating.prompt import CompiledPrompt
from quarterdeck.templating.variables import VariablesError

Members = dict[str, msgspec.Raw]

LARGE_BYTES = 32 * 1024
"""Variables that are larger are rendered in a thread: a loop over a megabyte of them takes a tenth of a second, which
costs its caller nothing and would be everybody's."""
HEADER = b"x-quarterdeck-prompt"
"""Of an answer: `NAME@VERSION`."""

_OUTPUT_LIMITS = ("max_tokens", "max_completion_tokens")
_NULL = msgspec.Raw(b"null")
_decode_objects = msgspec.json.Decoder(list[msgspec.Raw]).decode


class PromptRequest(msgspec.Struct, frozen=True, eq=False):
    """A request that names a prompt and is not rendered yet."""

    operation: Operation
    members: Members
    calls_functions: bool = False
    """Of a request that was translated to `tools` already."""


class PromptExecutor:
    """`random` is a parameter so that tests can make it deterministic."""

    def __init__(self, catalogue: PromptCatalogue, random: Callable[[], float] = unseeded) -> None:
        self._catalogue = catalogue
        self._random = random

    def decode(self, operation: Operation, body: bytes) -> InferenceRequest | PromptRequest:
        """A body as `request.decode` does it, or a request that names a prompt. Raises BadRequestError.

        A request without a prompt pays a look-up in its members and a look at its model's first letters.
        """
        try:
            request = decode(operation, body)
        except BadRequestError:
            # Without messages, or with an object as its prompt, a request is complete only once it is rendered.
            if operation is not Operation.CHAT and operation is not Operation.COMPLETIONS:
                raise
            members = requests.members(body)
            if not _names_prompt(operation, members):
                raise
            return PromptRequest(operation, members)
        if operation is Operation.CHAT:
            if "prompt" not in request.members and not request.parsed.model.startswith(MODEL_PREFIX):
                return request
        elif operation is not Operation.COMPLETIONS or not request.parsed.model.startswith(MODEL_PREFIX):
            return request
        return PromptRequest(operation, request.members, request.calls_functions)

    async def render(self, head: Head, request: PromptRequest) -> InferenceRequest:
        """Raises BadRequestError, NotFoundError (`prompt_not_found`, `prompt_version_not_found`, `label_not_found`) and
        ServiceUnavailableError where the version is not in memory and the database is away."""
        operation, members = request.operation, request.members
        model = _text(members.get("model"))
        # A completion's own prompt may be text, which follows the rendered one.
        is_object = operation is Operation.CHAT or _is_object(members.get("prompt"))
        reference = read_reference(model, members.get("prompt") if is_object else None)
        principal = head.principal
        known = self._catalogue.find(principal.org, principal.team, reference.ref, is_admin=principal.is_admin)
        version = reference.version or self._picked(known, reference.label, members)
        compiled = self._catalogue.held(known, version) or await self._catalogue.read(known, version)
        use = PromptUse(known.row.name, str(version), reference.label or None)
        if is_object and (member := members.get("prompt")) and memoryview(member).nbytes > LARGE_BYTES:
            made = await asyncio.to_thread(_rendered, operation, members, compiled, reference, use)
        else:
            made = _rendered(operation, members, compiled, reference, use)
        try:
            body = msgspec.json.encode(made)
        except RecursionError:  # messages of a placeholder
            raise BadRequestError(
                "Invalid 'prompt.variables': a value is nested too deeply.",
                param="prompt.variables",
                code="invalid_prompt_variables",
            ) from None
        made_request = decode(operation, body)
        calls_functions = request.calls_functions or made_request.calls_functions
        return msgspec.structs.replace(made_request, prompt=use, calls_functions=calls_functions)

    def _picked(self, known: KnownPrompt, label: str, members: Members) -> int:
        targets = self._catalogue.targets(known, label)
        if targets is None:
            return known.row.latest
        who = _who(members, targets.sticky) if targets.is_split else None
        return targets.pick(who, self._random)


def _rendered(
    operation: Operation, members: Members, compiled: CompiledPrompt, reference: Reference, use: PromptUse
) -> Mapping[str, Any]:
    made: dict[str, Any] = {name: raw for name, raw in members.items() if raw != _NULL}
    prompt = made.pop("prompt", None)
    try:
        if operation is Operation.CHAT:
            made["messages"] = _messages(compiled, reference.variables, made.get("messages"))
        elif compiled.spec.type == "text":
            made["prompt"] = compiled.text(reference.variables) + _following(prompt)
        else:
            raise BadRequestError(
                f"The prompt '{use.name}' has messages: use it with /v1/chat/completions.",
                param=reference.param,
                code="prompt_type_mismatch",
            )
    except VariablesError as error:
        param = f"prompt.variables.{error.names[0][:64]}"
        message = f"Invalid variables for the prompt '{use.text}': {error}."
        raise BadRequestError(message, param=param, code="invalid_prompt_variables") from None
    except RenderError as error:
        message = f"The prompt '{use.text}' can't be rendered with these variables: {error}."
        raise BadRequestError(message, param="prompt.variables", code="prompt_not_rendered") from None
    for name, value in _defaults(compiled.spec, made).items():
        made.setdefault(name, value)
    _set_model(made, compiled.spec, use)
    return made


def _messages(compiled: CompiledPrompt, variables: Mapping[str, Any], given: Any) -> list[Any]:
    following: list[Any] = []
    if given is not None:
        try:
            following = _decode_objects(given)
        except msgspec.DecodeError:
            raise BadRequestError(
                "Invalid type for 'messages': expected an array.", param="messages", code="invalid_type"
            ) from None
    if compiled.spec.type == "chat":
        return [*compiled.messages(variables), *following]
    # Before a conversation a text is its instruction; alone it is the question.
    return [{"role": "system" if following else "user", "content": compiled.text(variables)}, *following]


def _following(prompt: Any) -> str:
    """A completion's own text, which follows the rendered one. Raises BadRequestError for token ids and lists."""
    if prompt is None or _is_object(prompt):
        return ""
    text = _text(prompt)
    if text is None:
        raise BadRequestError(
            "Invalid type for 'prompt': expected a string or an object where the model names a prompt.",
            param="prompt",
            code="invalid_type",
        )
    return text


def _defaults(spec: PromptSpec, made: Mapping[str, Any]) -> dict[str, Any]:
    """What the version gives where the request does not."""
    found: dict[str, Any] = dict(spec.parameters)
    if any(name in made for name in _OUTPUT_LIMITS):  # the request's limit counts, whichever name it has
        for name in _OUTPUT_LIMITS:
            found.pop(name, None)
    if spec.response_format is not None:
        found["response_format"] = spec.response_format
    if spec.tools is not None and "tools" not in made and "functions" not in made:
        found["tools"] = spec.tools
        if spec.tool_choice is not None:
            found["tool_choice"] = spec.tool_choice
    return found


def _set_model(made: dict[str, Any], spec: PromptSpec, use: PromptUse) -> None:
    """The request's model, unless it names the prompt; else the version's. Raises BadRequestError."""
    given = _text(made.get("model")) if isinstance(made.get("model"), msgspec.Raw) else None
    if "model" in made and given is None:
        return  # of another type: refused when the request is decoded
    if given and not given.startswith(MODEL_PREFIX):
        return
    if spec.model is None:
        raise BadRequestError(
            f"Missing required parameter: 'model'. The prompt '{use.text}' names none.",
            param="model",
            code="missing_required_parameter",
        )
    made["model"] = spec.model


def _names_prompt(operation: Operation, members: Members) -> bool:
    prompt = members.get("prompt")
    if prompt is not None and prompt != _NULL and (operation is Operation.CHAT or _is_object(prompt)):
        return True
    model = _text(members.get("model"))
    return model is not None and model.startswith(MODEL_PREFIX)


def _who(members: Members, sticky: str) -> str | None:
    """Whose requests stay with a version of a split."""
    if sticky == "session":
        metadata = members.get("metadata")
        value = requests.decode_value(metadata) if metadata is not None else None
        session = value.get("session_id") if isinstance(value, dict) else None
        return session if isinstance(session, str) and session else None
    if sticky == "user":
        return _text(members.get("safety_identifier")) or _text(members.get("user")) or None
    return None


def _text(raw: msgspec.Raw | None) -> str | None:
    """A member's string. None: it is absent or no string."""
    if raw is None or bytes(memoryview(raw)[:1]) != b'"':
        return None
    value = requests.decode_value(raw)
    return value if isinstance(value, str) else None


def _is_object(raw: msgspec.Raw | None) -> bool:
    return raw is not None and bytes(memoryview(raw)[:1]) == b"{"
