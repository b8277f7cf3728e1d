"""Which requests may be answered from the cache, and the cache key.

The key is a SHA-256 of everything that could change the answer, or who may see it (`cache_key`):

* the key format (`FORMAT`);
* the served model, a digest of its engine and endpoints, and the hash of its weights (`ResolvedPolicy.weights`);
* the policy's scope, and the ids of the organisation and the key or team that share an answer in it;
* the operation, the prompt version, and whether the answer is a stream, with its `stream_options`;
* the API key's `max_tokens`, which is written into requests that set none;
* the client's headers that are forwarded to the engine;
* every field of the body except `_IGNORED`, by name and value.

Values are compared as written, apart from white space; only the order of the top-level fields is ignored. An engine's
tokenizer sees the order of a tool's properties, so nothing below the top level is sorted, and numbers keep their
spelling (`0` is not `0.0`). A meaningless difference costs a miss; a false match would return a wrong answer.

A streamed and a complete answer have different keys. Neither can be made from the other exactly: engines add fields to
a complete answer that no chunk has (`refusal`, `prompt_logprobs`, `service_tier`), and their tool parsers differ.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import msgspec

from quarterdeck.accounting.principal import Principal
from quarterdeck.inference.call import Head, Operation
from quarterdeck.inference.request import InferenceRequest
from quarterdeck.inference.routing.directory import ServedModel
from quarterdeck.protocol.requests import AnyRequest, GenerationRequest
from quarterdeck.settings.cache import CachePolicy
from quarterdeck.settings.config import Config

FORMAT = "3"
"""Part of every key: entries of another format are never found."""
MAX_PREFIXES = 1024
MAX_PREFIX_BYTES = 2048
"""Hash prefixes kept per policy, and the longest text of one: 3 MB at most."""
KEY_DIGITS = 40
"""Hex digits of the SHA-256: 160 bits, too many to search for two prompts with one key. CPUs have instructions for
SHA-256, so it takes half the time of BLAKE2b."""

CACHEABLE = frozenset((Operation.CHAT, Operation.COMPLETIONS, Operation.EMBEDDINGS, Operation.SCORE))
_IGNORED = frozenset(
    (
        "model",  # the resolved policy has the served model
        *("stream", "stream_options"),  # in `_stream_part`
        *("user", "safety_identifier", "metadata"),  # describe the user, not the request
        *("prompt_cache_key", "prompt_cache_retention", "priority", "cache"),  # how the request is handled
    )
)
_FORBIDDING = "kv_transfer_params"
"""Ties an answer to another engine's memory."""
_MAX_AGE = re.compile(r"\bmax-age\s*=\s*\"?(\d{1,9})")


def _team_of(principal: Principal) -> tuple[object, ...]:
    team = principal.org, principal.team
    return team if principal.team_remade is None else (*team, principal.team_remade)


_SCOPES: dict[str, Callable[[Principal], object]] = {
    "key": attrgetter("org", "key"),
    "team": _team_of,
    "org": attrgetter("org"),
}


@dataclass(slots=True, eq=False)
class ResolvedPolicy:
    """The cache policy of one model name under one configuration, with what its keys need."""

    settings: CachePolicy
    model_identity: str
    """The served model, a digest of its engine and endpoints, and its weights: a change of any changes every key."""
    weights: str = ""
    """An adapter's name with its content's hash, or the fingerprint of a model's files. Empty: not known."""
    scope: Callable[[Principal], object] = field(init=False)
    """The ids of those who share an answer."""
    only_repeatable: bool = field(init=False)
    """Whether to cache only requests that the engine would answer alike again: temperature 0, or a seed."""
    max_bytes: int = field(init=False)
    """The largest answer that is stored."""
    prefixes: dict[tuple[object, ...], tuple[Any, list[str]]] = field(default_factory=dict)
    """SHA-256 states of everything but the fields' values, and the fields' order. A request continues from a copy."""

    def __post_init__(self) -> None:
        self.scope = _SCOPES[self.settings.scope]
        self.only_repeatable = self.settings.temperature != "any"
        self.max_bytes = self.settings.max_entry_kb * 1024


class PolicyResolver:
    """Cache policies by model name. One is made for each configuration."""

    def __init__(self, config: Config) -> None:
        cache = config.cache
        self._policies = cache.policies
        self._default = cache.default
        self.is_off = not any(policy.exact for policy in (cache.default, *cache.policies.values()))
        self._versions = {model.name: _digest(model.model_dump_json(include=_SERVED_BY)) for model in config.models}
        self._resolved: dict[tuple[str, str], ResolvedPolicy | None] = {}

    def resolve(self, name: str, served: ServedModel, weights: str = "") -> ResolvedPolicy | None:
        """The policy for requests to `name`. None: they are not cached. Without `weights`, as no endpoint is ready, the
        last ones count: cached answers outlive an outage."""
        if self.is_off:
            return None
        found = self._resolved.get((name, served.name), _UNKNOWN)
        if found is _UNKNOWN or (isinstance(found, ResolvedPolicy) and weights and found.weights != weights):
            # Names that were resolved before, so there are no more of them than served models.
            found = self._resolved[name, served.name] = self._make(name, served, weights)
        return found  # type: ignore[return-value]  # narrowed by identity with a sentinel

    def _make(self, name: str, served: ServedModel, weights: str) -> ResolvedPolicy | None:
        names = (name, served.name, served.model)
        policy = next((self._policies[n] for n in names if n in self._policies), self._default)
        if not policy.exact:
            return None
        version = self._versions.get(served.model, "")
        return ResolvedPolicy(policy, f"{served.name}@{version}@{weights}", weights)


@dataclass(frozen=True, slots=True)
class CacheControl:
    """What the client allows."""

    reads: bool = True
    """It accepts a cached answer."""
    stores: bool = True
    """Its answer may be stored."""
    max_age: int | None = None
    """The oldest cached answer that it accepts, in seconds. None: any."""


UNRESTRICTED = CacheControl()


class CacheQuery(msgspec.Struct, frozen=True, gc=False):
    """A cacheable request: its key, and how its answer may be used."""

    key: str
    """Without the organisation, which is part of the key in Redis."""
    policy: ResolvedPolicy
    control: CacheControl


def parse_cache_control(header: bytes, member: msgspec.Raw | None = None) -> CacheControl:
    """Read a request's `cache-control` header, and the body's `cache` field as LiteLLM's clients send it."""
    if not header and member is None:
        return UNRESTRICTED
    words = header.decode("latin-1").lower()
    directives = {word.partition("=")[0].strip() for word in words.split(",")}
    max_age = int(found[1]) if (found := _MAX_AGE.search(words)) else None
    body = _object(member)
    if isinstance(limit := body.get("s-maxage", body.get("s-max-age")), int | float):
        max_age = int(limit) if max_age is None else min(max_age, int(limit))
    return CacheControl(
        reads=not (directives & {"no-store", "no-cache"} or body.get("no-cache") or max_age == 0),
        stores=not ("no-store" in directives or body.get("no-store")),
        max_age=max_age,
    )


def make_query(
    policy: ResolvedPolicy,
    head: Head,
    request: InferenceRequest,
    *,
    control: CacheControl = UNRESTRICTED,
    prompt_version: str = "",
) -> CacheQuery | None:
    """The cache query of a request. None: it must not be answered from the cache, nor its answer stored."""
    parsed, members = request.parsed, request.members
    if request.operation not in CACHEABLE or _FORBIDDING in members or not (control.reads or control.stores):
        return None
    if policy.only_repeatable and not _is_repeatable(parsed):
        return None
    return CacheQuery(cache_key(policy, head, parsed, members, prompt_version), policy, control)


def _is_repeatable(parsed: AnyRequest) -> bool:
    return not isinstance(parsed, GenerationRequest) or parsed.temperature == 0 or parsed.seed is not None


def cache_key(
    policy: ResolvedPolicy,
    head: Head,
    request: AnyRequest,
    members: dict[str, msgspec.Raw],
    prompt_version: str = "",
) -> str:
    """The key, of the parts that the module's docstring lists. About 3 µs for a body of 1 KB, then by its length."""
    principal = head.principal
    parts = (
        *(head.operation, policy.scope(principal), prompt_version),
        _stream_part(request, members) if "stream" in members else "",
        principal.max_tokens,
        head.headers,
        *members,
    )
    prefix, names = policy.prefixes.get(parts) or _hash_prefix(policy, parts, members)
    text = _encode([*map(members.get, names)])
    whole = prefix.copy()
    whole.update(msgspec.json.format(text, indent=-1))  # without white space
    key: str = whole.hexdigest()[:KEY_DIGITS]
    return key


def _hash_prefix(
    policy: ResolvedPolicy, parts: tuple[object, ...], members: Mapping[str, msgspec.Raw]
) -> tuple[Any, list[str]]:
    """The hash of everything but the fields' values, and the names of the fields in the order of these values."""
    names = sorted(members.keys() - _IGNORED)
    text = _encode((FORMAT, policy.model_identity, policy.settings.scope, parts[: -len(members)], names))
    prefix = hashlib.sha256(text), names
    if len(text) <= MAX_PREFIX_BYTES:  # a client can send any field names
        if len(policy.prefixes) >= MAX_PREFIXES:
            policy.prefixes.clear()
        policy.prefixes[parts] = prefix
    return prefix


def _stream_part(request: AnyRequest, members: Mapping[str, msgspec.Raw]) -> str:
    """Whether the answer is a stream, and its options. `include_usage` does not matter: a replay adds or removes it."""
    if not isinstance(request, GenerationRequest) or not request.stream:
        return ""
    if "stream_options" not in members:
        return "stream"
    options = _object(members.get("stream_options"))
    options.pop("include_usage", None)
    return f"stream {msgspec.json.encode(options).decode()}" if options else "stream"


_UNKNOWN = object()
_encode = msgspec.json.Encoder().encode
_SERVED_BY = {"engine", "endpoints", "too_long"}


def _object(member: msgspec.Raw | None) -> dict[str, Any]:
    value = msgspec.json.decode(member) if member is not None else None
    return value if isinstance(value, dict) else {}


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
