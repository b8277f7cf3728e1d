"""The body that an engine is sent. Pure.

Only members that must differ are set; the others are sent byte for byte.
"""

import msgspec

from quarterdeck.errors import BadRequestError
from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.inference.request import InferenceRequest
from quarterdeck.inference.routing.directory import ServedModel
from quarterdeck.protocol import requests
from quarterdeck.protocol.dialects import translate
from quarterdeck.protocol.requests import COMPLETION_MAX_TOKENS, ChatCompletionRequest, GenerationRequest
from quarterdeck.protocol.stream_usage import with_usage
from quarterdeck.settings.limits import Limits

OPERATOR_ONLY = frozenset(("kv_transfer_params", "chat_template", "prompt_embeds", "logits_processors", "priority"))
"""vLLM parameters that a client may not set: another engine's address, a template that vLLM renders, a pickled tensor,
code to import, a place at the head of vLLM's queue."""


def prepare_body(request: InferenceRequest, served: ServedModel, limits: Limits) -> bytes:
    """The body for an engine that serves `served`; the client's own bytes where nothing changes.

    Raises BadRequestError for a parameter that clients may not set and for more tokens than the key allows.
    """
    parsed, members = request.parsed, request.members
    if not OPERATOR_ONLY.isdisjoint(members) or "chat_template_kwargs" in members:
        _refuse_operator_parameters(members)
    changed: dict[str, object] = {}
    if parsed.model != served.name:
        changed["model"] = served.name
    if isinstance(parsed, GenerationRequest):
        if parsed.stream and not request.shows_usage:
            changed["stream_options"] = with_usage(members.get("stream_options"))
        if limits.max_tokens is not None:
            changed |= _token_limit(limits.max_tokens, parsed)
    return requests.with_members(members, changed) if changed else request.body


def adapt_body(body: bytes, endpoint: Endpoint, renamed: str | None = None) -> bytes:
    """A prepared body for one endpoint: the endpoint's name for the model, and without vLLM's own parameters where the
    endpoint is not vLLM. `renamed`: the engine's name where it is not the one that the body was prepared for."""
    name = endpoint.spec.upstream_model or renamed
    if name is None and endpoint.spec.kind == "vllm":
        return body
    members = translate(msgspec.json.decode(body, type=dict[str, msgspec.Raw]), endpoint.spec.kind, endpoint.habits)
    return requests.with_members(members, {} if name is None else {"model": name})


def _refuse_operator_parameters(members: dict[str, msgspec.Raw]) -> None:
    names = sorted(OPERATOR_ONLY & members.keys())
    arguments = members.get("chat_template_kwargs")
    if not names and arguments is not None:
        found = msgspec.json.decode(arguments)
        names = ["chat_template_kwargs"] if isinstance(found, dict) and "chat_template" in found else []
    if names:
        raise BadRequestError(
            f"Unsupported parameter: '{names[0]}' can't be set by a request.",
            param=names[0],
            code="unsupported_parameter",
        )


def _token_limit(most: int, parsed: GenerationRequest) -> dict[str, object]:
    """The member that limits the output to the key's `max_tokens`, where the request has no limit of its own."""
    given = {"max_tokens": parsed.max_tokens}
    if isinstance(parsed, ChatCompletionRequest):
        given["max_completion_tokens"] = parsed.max_completion_tokens
    for name, tokens in given.items():
        if tokens is not None and tokens > most:
            raise BadRequestError(
                f"{name} is too large: {tokens}. This key supports at most {most} tokens.",
                param=name,
                code="max_tokens_exceeded",
            )
    if any(tokens is not None for tokens in given.values()):
        return {}
    if isinstance(parsed, ChatCompletionRequest):
        return {"max_completion_tokens": most}
    return {"max_tokens": min(most, COMPLETION_MAX_TOKENS)}
