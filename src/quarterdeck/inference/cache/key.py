"""Which requests may be given an old answer, and what makes two of them one.

Two requests are one where nothing that could change the answer differs: who may share it, the model and how it is
served, the prompt's version, and every member of the body but a few that engines don't read. Members are compared as
they were written, apart from their order and from white space: what an engine's tokenizer sees depends on the order of
a tool's properties, so nothing below the top is sorted, and a number is as it was spelled (`0` is not `0.0`). A
difference that means nothing costs a miss; a likeness that is none would cost a wrong answer.

A stream and a body are two answers. One can't be made of the other exactly: engines put members into a body that no
chunk has (`refusal`, `prompt_logprobs`, `service_tier`), and their tool parsers differ between the two.
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
from quarterdeck.inference.routing.directory import ServedModel
from quarterdeck.protocol.requests import AnyRequest, Generation
from quarterdeck.settings.cache import CachePolicy
from quarterdeck.settings.config import Config

FORMAT = "3"
"""Part of every key: an entry of another format is never found."""
MAX_BEGUN = 1024
MAX_BEGUN_BYTES = 2048
"""Hashes begun that a plan keeps, and of how much each: 3 MB at most."""
KEY_DIGITS = 40
"""Of SHA-256, in hex: 160 bits are out of reach of somebody who looks for two prompts with one key. CPUs have
instructions for it: it takes half of BLAKE2b's time."""

CACHEABLE = frozenset((Operation.CHAT, Operation.COMPLETIONS, Operation.EMBEDDINGS, Operation.SCORE))
_IGNORED = frozenset(
    (
        "model",  # as it is served, in the plan
        *("stream", "stream_options"),  # read apart
        *("user", "safety_identifier", "metadata"),  # whose request it is, not what it asks
        *("prompt_cache_key", "prompt_cache_retention", "priority", "cache"),  # how it is handled
    )
)
_FORBIDDING = "kv_transfer_params"
"""It ties an answer to another engine's memory."""
_MAX_AGE = re.compile(r"\bmax-age\s*=\s*\"?(\d{1,9})")
_SCOPES: dict[str, Callable[[Principal], object]] = {
    "key": attrgetter("org", "key"),
    "team": attrgetter("org", "team"),
    "org": attrgetter("org"),
}


@dataclass(slots=True, eq=False)
class Plan:
    """What is done with the answers of one name under one configuration."""

    policy: CachePolicy
    identity: str
    """The model and how it is served: another one after any change of its engine, adapters or endpoints."""
    scope: Callable[[Principal], object] = field(init=False)
    """Who may share an answer."""
    only_repeatable: bool = field(init=False)
    """Whether only those answers may be given again that the engine would give again."""
    most: int = field(init=False)
    """Bytes of an answer that is kept."""
    begun: dict[tuple[object, ...], tuple[Any, list[str]]] = field(default_factory=dict)
    """Hashes begun with all but the members' values, and the order of these: a request goes on with a copy."""

    def __post_init__(self) -> None:
        self.scope = _SCOPES[self.policy.scope]
        self.only_repeatable = self.policy.temperature != "any"
        self.most = self.policy.max_entry_kb * 1024


class Plans:
    """All of one configuration; made anew with each."""

    def __init__(self, config: Config) -> None:
        cache = config.cache
        self._policies = cache.policies
        self._default = cache.default
        self.is_off = not any(policy.exact for policy in (cache.default, *cache.policies.values()))
        self._versions = {model.name: _digest(model.model_dump_json(include=_SERVED_BY)) for model in config.models}
        self._plans: dict[tuple[str, str], Plan | None] = {}

    def plan(self, name: str, served: ServedModel) -> Plan | None:
        """For a request that calls `name`; None where its answers are not kept."""
        if self.is_off:
            return None
        found = self._plans.get((name, served.name), _UNKNOWN)
        if found is _UNKNOWN:  # names that were resolved, so there are as many as are served
            found = self._plans[name, served.name] = self._make(name, served)
        return found  # type: ignore[return-value]  # narrowed by identity with a sentinel

    def _make(self, name: str, served: ServedModel) -> Plan | None:
        names = (name, served.name, served.model)
        policy = next((self._policies[n] for n in names if n in self._policies), self._default)
        if not policy.exact:
            return None
        return Plan(policy, f"{served.name}@{self._versions.get(served.model, '')}")


@dataclass(frozen=True, slots=True)
class Control:
    """What the caller allows."""

    reads: bool = True
    """An old answer will do."""
    stores: bool = True
    """The answer may be kept."""
    max_age: int | None = None
    """Seconds; an older answer won't do."""


FREELY = Control()


class Question(msgspec.Struct, frozen=True, gc=False):
    """A request as the cache sees it."""

    key: str
    """Without the org, which is part of the key in Redis."""
    plan: Plan
    control: Control


def control_of(header: bytes, member: msgspec.Raw | None = None) -> Control:
    """Read a request's `cache-control`, and the body's `cache` as LiteLLM's clients send it."""
    if not header and member is None:
        return FREELY
    words = header.decode("latin-1").lower()
    directives = {word.partition("=")[0].strip() for word in words.split(",")}
    max_age = int(found[1]) if (found := _MAX_AGE.search(words)) else None
    body = _object(member)
    if isinstance(limit := body.get("s-maxage", body.get("s-max-age")), int | float):
        max_age = int(limit) if max_age is None else min(max_age, int(limit))
    return Control(
        reads=not (directives & {"no-store", "no-cache"} or body.get("no-cache") or max_age == 0),
        stores=not ("no-store" in directives or body.get("no-store")),
        max_age=max_age,
    )


def ask(
    plan: Plan,
    head: Head,
    request: AnyRequest,
    members: dict[str, msgspec.Raw],
    *,
    control: Control = FREELY,
    prompt_version: str = "",
) -> Question | None:
    """The question that this request is. None: it must not be answered from the cache, nor its answer kept."""
    if head.operation not in CACHEABLE or _FORBIDDING in members or not (control.reads or control.stores):
        return None
    if plan.only_repeatable and isinstance(request, Generation) and request.temperature != 0 and request.seed is None:
        return None
    return Question(key_of(plan, head, request, members, prompt_version), plan, control)


def key_of(
    plan: Plan, head: Head, request: AnyRequest, members: dict[str, msgspec.Raw], prompt_version: str = ""
) -> str:
    """What all that matters is hashed to: some 3 µs for a body of 1 KB, then by its bytes."""
    principal = head.principal
    beside = (
        *(head.operation, plan.scope(principal), prompt_version),
        _stream_of(request, members) if "stream" in members else "",
        principal.limits.max_tokens,  # it is written into a request that names none
        head.headers,  # those that the engine sees
        *members,
    )
    begun, names = plan.begun.get(beside) or _begin(plan, beside, members)
    text = _encode([*map(members.get, names)])
    whole = begun.copy()
    whole.update(msgspec.json.format(text, indent=-1))  # without white space
    key: str = whole.hexdigest()[:KEY_DIGITS]
    return key


def _begin(plan: Plan, beside: tuple[object, ...], members: Mapping[str, msgspec.Raw]) -> tuple[Any, list[str]]:
    names = sorted(members.keys() - _IGNORED)
    text = _encode((FORMAT, plan.identity, plan.policy.scope, beside[: -len(members)], names))
    begun = hashlib.sha256(text), names
    if len(text) <= MAX_BEGUN_BYTES:  # a caller may name members as he likes
        if len(plan.begun) >= MAX_BEGUN:
            plan.begun.clear()
        plan.begun[beside] = begun
    return begun


def _stream_of(request: AnyRequest, members: Mapping[str, msgspec.Raw]) -> str:
    """Whether it is a stream, with its options; that of its usage is heeded when it is replayed."""
    if not isinstance(request, Generation) or not request.stream:
        return ""
    if "stream_options" not in members:
        return "stream"
    options = _object(members.get("stream_options"))
    options.pop("include_usage", None)
    return f"stream {msgspec.json.encode(options).decode()}" if options else "stream"


_UNKNOWN = object()
_encode = msgspec.json.Encoder().encode
_SERVED_BY = {"engine", "endpoints"}


def _object(member: msgspec.Raw | None) -> dict[str, Any]:
    value = msgspec.json.decode(member) if member is not None else None
    return value if isinstance(value, dict) else {}


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
