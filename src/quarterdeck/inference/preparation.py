"""The body on its way to the engine: what is changed, and what a request is expected to cost. Pure.

Only members that must differ are set; the others go on byte for byte.
"""

import msgspec

from quarterdeck.errors import BadRequestError
from quarterdeck.inference.endpoints.sources import Endpoint
from quarterdeck.inference.metering.meter import estimated
from quarterdeck.inference.routing.directory import ServedModel
from quarterdeck.protocol import requests
from quarterdeck.protocol.dialects import spoken
from quarterdeck.protocol.requests import AnyRequest, ChatCompletion, Generation
from quarterdeck.protocol.stream_usage import includes_usage, with_usage
from quarterdeck.settings.limits import Limits

DEFAULT_OUTPUT_TOKENS = 256
"""What a request that names no max_tokens reserves of a token limit; settled at what it used."""


COMPLETIONS_DEFAULT = 16
"""OpenAI's `max_tokens` of a completion that names none; chat has no such bound."""
MAX_ESTIMATE = 10**9
"""Far above any answer. Redis' Lua counts in doubles, which stay exact below 2⁵³."""


NEVER_FROM_CALLERS = frozenset(
    ("kv_transfer_params", "chat_template", "prompt_embeds", "logits_processors", "priority")
)
"""What vLLM takes from whoever runs it and nobody else may say: another engine's address, a template that it renders, a
pickled tensor, code to import, a place in its queue before all others."""


class Estimate(msgspec.Struct, frozen=True, gc=False):
    """Tokens that a request is expected to need at most."""

    prompt: int
    output: int
    total: int
    """Both."""


def estimate(body: bytes, request: AnyRequest) -> Estimate:
    """What to reserve: the prompt by its bytes, the output by what it may become."""
    prompt = min(estimated(len(body)), MAX_ESTIMATE)
    if not isinstance(request, Generation):
        return Estimate(prompt, 0, prompt)
    most = request.max_tokens or DEFAULT_OUTPUT_TOKENS
    if isinstance(request, ChatCompletion):
        most = request.max_completion_tokens or most
    output = min(most * (request.n or 1), MAX_ESTIMATE - prompt)
    return Estimate(prompt, output, prompt + output)


def prepared(
    body: bytes, members: dict[str, msgspec.Raw], request: AnyRequest, served: ServedModel, limits: Limits
) -> bytes:
    """The body as the engine shall have it; untouched where nothing must change. Raises BadRequestError."""
    if not NEVER_FROM_CALLERS.isdisjoint(members) or "chat_template_kwargs" in members:
        _refuse_what_is_not_the_callers(members)
    changed: dict[str, object] = {}
    if request.model != served.name:
        changed["model"] = served.name
    if isinstance(request, Generation):
        if request.stream and not includes_usage(request):
            changed["stream_options"] = with_usage(members.get("stream_options"))
        if limits.max_tokens is not None:
            changed |= _held_to(limits.max_tokens, request)
    return requests.with_members(members, changed) if changed else body


def _refuse_what_is_not_the_callers(members: dict[str, msgspec.Raw]) -> None:
    names = sorted(NEVER_FROM_CALLERS & members.keys())
    arguments = members.get("chat_template_kwargs")
    if not names and arguments is not None:
        found = msgspec.json.decode(arguments)
        names = ["chat_template_kwargs"] if isinstance(found, dict) and "chat_template" in found else []
    if names:
        raise BadRequestError(f"'{names[0]}' can't be set by a request.", param=names[0], code="unsupported_parameter")


def _held_to(most: int, request: Generation) -> dict[str, object]:
    """Hold a request to its key's `max_tokens`, in whichever field it may be asked for."""
    asked = {"max_tokens": request.max_tokens}
    if isinstance(request, ChatCompletion):
        asked["max_completion_tokens"] = request.max_completion_tokens
    for name, tokens in asked.items():
        if tokens is not None and tokens > most:
            raise BadRequestError(
                f"This key may ask for at most {most} tokens, not {tokens}.", param=name, code="max_tokens_exceeded"
            )
    if any(tokens is not None for tokens in asked.values()):
        return {}
    if isinstance(request, ChatCompletion):
        return {"max_completion_tokens": most}
    return {"max_tokens": min(most, COMPLETIONS_DEFAULT)}


def for_endpoint(body: bytes, endpoint: Endpoint, renamed: str | None = None) -> bytes:
    """The body as this endpoint shall have it: the model by its name over there, and nothing that only vLLM knows where
    it is no vLLM. `renamed`: the model's name, where it is not the one that the body was prepared for."""
    name = endpoint.upstream_model or renamed
    if name is None and endpoint.kind == "vllm":
        return body
    members = spoken(msgspec.json.decode(body, type=dict[str, msgspec.Raw]), endpoint.kind)
    return requests.with_members(members, {} if name is None else {"model": name})
