"""The body that an engine is sent. Pure.

Only members that must differ are set; the others are sent byte for byte.
"""

import hashlib
from functools import lru_cache

import msgspec

from quarterdeck.errors import BadRequestError
from quarterdeck.inference.call import FREE
from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.inference.request import InferenceRequest
from quarterdeck.inference.routing.directory import ServedModel
from quarterdeck.protocol import requests
from quarterdeck.protocol.dialects import translate
from quarterdeck.protocol.requests import (
    COMPLETION_MAX_TOKENS,
    AnyRequest,
    ChatCompletionRequest,
    CompletionRequest,
    EmbeddingRequest,
    GenerationRequest,
    ScoreRequest,
)
from quarterdeck.protocol.stream_usage import with_usage

OPERATOR_ONLY = frozenset(
    {
        *("kv_transfer_params", "ec_transfer_params", "chat_template", "prompt_embeds", "logits_processors"),
        "priority",
    }
)
"""vLLM parameters that a client may not set: another engine's address, a template that vLLM renders, a pickled tensor,
code to import, a place at the head of vLLM's queue."""
_ARGUMENTS = frozenset(("chat_template_kwargs", "vllm_xargs", "mm_processor_kwargs"))
"""Parameters whose value may hold one of these, or a file to load."""
_CHECKED = OPERATOR_ONLY | _ARGUMENTS
_MAX_SALT = 1024
"""Characters, in vLLM."""


def prepare_body(request: InferenceRequest, served: ServedModel, most: int | None, *, salt: str | None = None) -> bytes:
    """The body for an engine that serves `served`; the client's own bytes where nothing changes.

    `most`: output tokens that the key, or its budget, allows. `salt`: separates the engine's prefix cache
    (`cache_salt`). Raises BadRequestError for a parameter that clients may not set, for more tokens than the key
    allows, and for token ids where the model refuses them.
    """
    parsed, members = request.parsed, request.members
    if not _CHECKED.isdisjoint(members):
        _refuse_operator_parameters(members)
    if not served.takes_token_ids:
        _refuse_token_ids(parsed, served)
    changed: dict[str, object] = {}
    if parsed.model != served.name:
        changed["model"] = served.name
    if isinstance(parsed, GenerationRequest):
        if parsed.stream and not request.shows_usage:
            changed["stream_options"] = with_usage(members.get("stream_options"))
        if most is not None:
            changed |= _token_limit(most, parsed)
    elif (
        served.truncates
        and isinstance(parsed, EmbeddingRequest | ScoreRequest)
        and bytes(members.get("truncate_prompt_tokens", b"null")) == b"null"
    ):
        changed["truncate_prompt_tokens"] = -1  # as many as the model reads
    if salt is not None and request.operation not in FREE:
        if not changed and "cache_salt" not in members:
            body = request.body
            # A request has a model, so another member follows.
            before, _, rest = body.partition(b"{")
            return before + _salted(salt) + rest
        changed["cache_salt"] = salt
    return requests.with_members(members, changed) if changed else request.body


def cache_salt(request: InferenceRequest, org: str, *, is_isolated: bool) -> str | None:
    """vLLM's `cache_salt` for a request: prompts share cached blocks only if their salts are equal.

    With `is_isolated` each organisation has its own salt. A client's own salt divides its organisation's cache further;
    it never selects the blocks of another organisation. Raises BadRequestError for a salt that vLLM refuses.
    """
    raw = request.members.get("cache_salt")
    if raw is None or bytes(raw) == b"null":
        return _salt_of(org, "") if is_isolated else None
    given = requests.decode_value(raw)
    if not isinstance(given, str) or not 0 < len(given) <= _MAX_SALT:
        raise BadRequestError(
            f"Invalid value for 'cache_salt': expected a string of 1 to {_MAX_SALT} characters.",
            param="cache_salt",
            code="invalid_value",
        )
    return _salt_of(org, given)


@lru_cache(maxsize=4096)
def _salted(salt: str) -> bytes:
    """The beginning of a body with this salt."""
    return b'{"cache_salt":"%b",' % salt.encode()


@lru_cache(maxsize=4096)
def _salt_of(org: str, given: str) -> str:
    """Equal at all gateways and after a restart. It needs no secret, because clients can't choose what is hashed."""
    return hashlib.sha256(f"quarterdeck\0{org}\0{given}".encode("utf-8", "surrogatepass")).hexdigest()[:43]


def adapt_body(body: bytes, endpoint: Endpoint, renamed: str | None = None, *, cap: int | None = None) -> bytes:
    """A prepared body for one endpoint: the endpoint's name for the model, and without vLLM's own parameters where the
    endpoint is not vLLM. `renamed`: the engine's name where it is not the one that the body was prepared for. `cap`:
    the limit of a chat that has none."""
    name = endpoint.spec.upstream_model or renamed
    if name is None and endpoint.spec.kind == "vllm":
        return body
    members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    if cap is not None and "messages" in members:
        members["max_tokens"] = msgspec.Raw(b"%d" % cap)
    members = translate(members, endpoint.spec.kind, endpoint.habits)
    return requests.with_members(members, {} if name is None else {"model": name})


def _refuse_operator_parameters(members: dict[str, msgspec.Raw]) -> None:
    names = sorted(OPERATOR_ONLY & members.keys())
    for name in sorted(_ARGUMENTS & members.keys()):
        found = requests.decode_value(members[name])
        if isinstance(found, dict) and not OPERATOR_ONLY.isdisjoint(found):
            names.append(name)
        elif name == "mm_processor_kwargs" and requests.has_any(found, str):
            # Passed to a Hugging Face processor as keyword arguments: it loads `images`, `videos` and `audio` by URL
            # or path.
            names.append(name)
    if names:
        raise BadRequestError(
            f"Unsupported parameter: '{names[0]}' can't be set by a request.",
            param=names[0],
            code="unsupported_parameter",
        )


def _refuse_token_ids(parsed: AnyRequest, served: ServedModel) -> None:
    if isinstance(parsed, EmbeddingRequest):
        param, given = "input", parsed.input
    elif isinstance(parsed, CompletionRequest):
        param, given = "prompt", parsed.prompt
    else:
        return
    if isinstance(given, list) and any(not isinstance(each, str) for each in given):
        hint = " With LangChain's OpenAIEmbeddings, set check_embedding_ctx_length=False." if param == "input" else ""
        raise BadRequestError(
            f"The model '{served.public_name}' does not accept token ids: their meaning depends on its own tokenizer."
            f" Send '{param}' as text.{hint}",
            param=param,
            code="token_ids_not_supported",
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
