"""Two requests have the same key exactly if nothing differs that could change the answer."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.inference.cache.samples import ALICE, MODELS, config, policy_of

from quarterdeck.accounting.principal import Principal
from quarterdeck.inference.cache.key import (
    MAX_PREFIXES,
    UNRESTRICTED,
    CacheControl,
    CacheQuery,
    ResolvedPolicy,
    make_query,
    parse_cache_control,
)
from quarterdeck.inference.call import Head, Operation
from quarterdeck.inference.request import decode
from quarterdeck.settings.cache import CachePolicy
from quarterdeck.settings.limits import Limits
from quarterdeck.settings.loading import parse

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
POLICY = policy_of(config())


def a_query(
    body: dict[str, Any] | bytes = CHAT,
    *,
    operation: Operation = Operation.CHAT,
    principal: Principal = ALICE,
    policy: ResolvedPolicy | None = POLICY,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    control: CacheControl = UNRESTRICTED,
    prompt_version: str = "",
) -> CacheQuery | None:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = Head("req_1", operation, principal, 0.0, headers)
    assert policy is not None
    return make_query(policy, head, decode(operation, text), control=control, prompt_version=prompt_version)


def key(*args: Any, **kwargs: Any) -> str:
    found = a_query(*args, **kwargs)
    assert found is not None
    return found.key


# what matters


_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_matters = st.fixed_dictionaries(
    {"temperature": st.just(0), "messages": st.lists(st.builds(lambda c: {"role": "user", "content": c}, st.text()))},
    optional={
        "tools": st.lists(st.dictionaries(st.text(max_size=5), _values, max_size=3), min_size=1, max_size=2),
        "max_tokens": st.integers(1, 100),
        "top_k": st.integers(0, 3),
        "stop": st.text(max_size=3),
        "x": _values.filter(lambda value: value is not None),
    },
)
_handling = st.fixed_dictionaries(
    {},
    optional={
        "user": st.text(),
        "safety_identifier": st.text(),
        "metadata": st.dictionaries(st.text(), st.text(), max_size=2),
        "prompt_cache_key": st.text(),
        "stream": st.sampled_from([None, False]),
    },
)


@given(_matters, _handling, _handling, st.randoms(), st.booleans())
def test_who_asks_and_how_it_is_written_does_not_matter(
    matters: dict[str, Any], one: dict[str, Any], other: dict[str, Any], random: Any, is_compact: bool
) -> None:
    members = list(({"model": "m"} | matters | other).items())
    random.shuffle(members)
    text = json.dumps(dict(members), indent=None if is_compact else 2, separators=(",", ":") if is_compact else None)
    assert key({"model": "m"} | matters | one) == key(text.encode())


@given(_matters, _matters)
def test_all_else_matters(one: dict[str, Any], other: dict[str, Any]) -> None:
    is_same = json.dumps(sorted(one.items())) == json.dumps(sorted(other.items()))
    assert (key({"model": "m"} | one) == key({"model": "m"} | other)) is is_same


def test_the_order_of_what_lies_deeper_matters() -> None:
    def tool(*names: str) -> dict[str, Any]:
        return CHAT | {"tools": [{"function": {"parameters": {"properties": {name: {} for name in names}}}}]}

    assert key(tool("a", "b")) != key(tool("b", "a"))


def test_the_operation_the_model_and_the_prompt_matter() -> None:
    keys = {
        key(),
        key({"model": "m", "prompt": "hi", "temperature": 0}, operation=Operation.COMPLETIONS),
        key({"model": "m", "input": "hi"}, operation=Operation.EMBEDDINGS),
        key(policy=policy_of(config(), "other")),
        key(prompt_version="2"),
        key(headers=((b"x-fault", b"slow"),)),
    }
    assert len(keys) == 6


def test_an_alias_is_its_model() -> None:
    assert key(CHAT | {"model": "gpt"}, policy=policy_of(config(), "gpt")) == key()


def test_another_engine_gives_other_answers() -> None:
    changed = MODELS.replace("http://one", "http://elsewhere")
    assert key(policy=policy_of(config(models=changed))) != key()
    repriced = MODELS.replace("aliases: [gpt]", "aliases: [gpt], price: {input: 1}")
    assert key(policy=policy_of(config(models=repriced))) == key()


def test_a_stream_is_another_answer_whether_or_not_it_tells_its_usage() -> None:
    stream = CHAT | {"stream": True}
    assert key(stream) != key()
    assert key(stream | {"stream_options": {"include_usage": True}}) == key(stream)
    assert key(stream | {"stream_options": {"continuous_usage_stats": True}}) != key(stream)


def test_what_a_key_is_held_to_matters() -> None:
    held = Principal("key_a", "a", "default", "red", Limits(max_tokens=5))
    assert key(principal=held) != key()


@pytest.mark.parametrize(
    ("scope", "shared"), [("key", "same key"), ("team", "same team"), ("org", "same org")], ids=lambda v: str(v)
)
def test_an_answer_is_shared_within_its_scope_and_no_further(scope: str, shared: str) -> None:
    policy = policy_of(config(f"{{default: {{exact: true, scope: {scope}}}}}"))
    others = {
        "same key": Principal("key_a", "renamed", "default", "red", Limits()),
        "same team": Principal("key_b", "b", "default", "red", Limits()),
        "same org": Principal("key_c", "c", "default", "blue", Limits()),
        "elsewhere": Principal("key_a", "a", "acme", "red", Limits()),
    }
    mine = key(policy=policy)
    sharing = [name for name, other in others.items() if key(policy=policy, principal=other) == mine]
    assert sharing == list(others)[: list(others).index(shared) + 1]


def test_names_and_values_are_told_apart() -> None:
    assert key(CHAT | {"a": "b", "c": "d"}) != key(CHAT | {"a": "d", "c": "b"})
    assert key(CHAT | {"a": [], "b": []}) != key(CHAT | {"a": [[], []]})


def test_the_hashes_that_are_kept_are_bounded() -> None:
    policy = policy_of(config())
    assert policy is not None
    for number in range(MAX_PREFIXES + 10):
        key(CHAT | {f"x{number}": 1}, policy=policy)
    assert len(policy.prefixes) <= MAX_PREFIXES
    before = len(policy.prefixes)
    assert key(CHAT | {"x" * 5000: 1}, policy=policy) == key(CHAT | {"x" * 5000: 1}, policy=policy)
    assert len(policy.prefixes) == before


# what may be cached


def test_nothing_is_cached_by_default() -> None:
    assert policy_of(parse(MODELS)) is None


def test_a_policy_is_found_by_the_name_called_then_by_its_model() -> None:
    found = config("{default: {exact: true}, policies: {m: {exact: false}, gpt: {ttl_seconds: 5}}}")
    assert policy_of(found) is None
    by_alias, other = policy_of(found, "gpt"), policy_of(found, "other")
    assert by_alias is not None and by_alias.settings.ttl_seconds == 5
    assert other is not None and other.settings == CachePolicy(exact=True)


@pytest.mark.parametrize(
    ("change", "is_cached"),
    [
        ({}, True),
        ({"temperature": 0.7}, False),
        ({"temperature": None}, False),
        ({"temperature": 0.7, "seed": 1}, True),
        ({"temperature": 0.7, "seed": None}, False),
        ({"n": 3}, True),
        ({"kv_transfer_params": {}}, False),
    ],
)
def test_by_default_only_what_an_engine_would_say_again(change: dict[str, Any], is_cached: bool) -> None:
    assert (a_query(CHAT | change) is not None) is is_cached


def test_any_temperature_by_choice() -> None:
    policy = policy_of(config("{default: {exact: true, temperature: any}}"))
    assert a_query(CHAT | {"temperature": 1.5}, policy=policy) is not None


def test_embeddings_have_no_temperature_and_counting_is_not_worth_it() -> None:
    assert a_query({"model": "m", "input": "hi"}, operation=Operation.EMBEDDINGS) is not None
    assert a_query({"model": "m", "prompt": "hi"}, operation=Operation.TOKENIZE) is None


@pytest.mark.parametrize(
    ("header", "member", "control"),
    [
        (b"", None, UNRESTRICTED),
        (b"", b"null", UNRESTRICTED),
        (b"private", b"[]", UNRESTRICTED),
        (b"no-cache", None, CacheControl(reads=False)),
        (b"No-Cache, max-age=0", None, CacheControl(reads=False, max_age=0)),
        (b"no-store", None, CacheControl(reads=False, stores=False)),
        (b"max-age=60", None, CacheControl(max_age=60)),
        (b"max-age=0", None, CacheControl(reads=False, max_age=0)),
        (b"\xff", None, UNRESTRICTED),
        (b"", b'{"no-cache": true}', CacheControl(reads=False)),
        (b"", b'{"no-store": true}', CacheControl(stores=False)),
        (b"max-age=60", b'{"s-maxage": 5}', CacheControl(max_age=5)),
        (b"", b'{"ttl": 5, "namespace": "x"}', UNRESTRICTED),
    ],
)
def test_a_caller_may_forbid_it(header: bytes, member: bytes | None, control: CacheControl) -> None:
    assert parse_cache_control(header, None if member is None else msgspec.Raw(member)) == control


def test_a_request_that_forbids_all_is_no_question() -> None:
    assert a_query(control=CacheControl(reads=False, stores=False)) is None
    refresh = a_query(control=CacheControl(reads=False))
    assert refresh is not None and refresh.key == key()
