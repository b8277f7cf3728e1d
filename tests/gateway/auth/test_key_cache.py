"""The tables of keys: what a read replaces, and what is dropped."""

from dataclasses import replace

import pytest
from tests.gateway.fakes import config, key_row

from quarterdeck.gateway.auth.key_cache import UNKNOWN_SECONDS, KeyCache
from quarterdeck.settings.limits import Limits
from quarterdeck.settings.live import Live

ROW = replace(key_row(id="key_1"), digest="d")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def a_cache(clock: Clock, **bounds: int) -> KeyCache:
    return KeyCache(Live(config()), clock=clock, **bounds)


def test_an_older_read_replaces_nothing(clock: Clock) -> None:
    cache = a_cache(clock)
    key = cache.keep("d", ROW, 5)
    cache.renew(key, replace(ROW, team="older"), 4)
    assert key.row.team == "default"
    cache.renew(key, replace(ROW, team="newer"), 6)
    assert (key.row.team, key.principal.team) == ("newer", "newer")


def test_a_row_that_did_not_change_keeps_its_principal(clock: Clock) -> None:
    cache = a_cache(clock)
    key = cache.keep("d", ROW, 1)
    principal = key.principal
    clock.now = 30.0
    cache.renew(key, replace(ROW), 2)
    assert (key.principal is principal, key.read_at) == (True, 30.0)


def test_a_rotated_key_is_found_by_its_new_secret_only(clock: Clock) -> None:
    cache = a_cache(clock)
    cache.keep("d", ROW, 1)
    key = cache.keep("new", replace(ROW, digest="new"), 2)
    assert (dict(cache.by_digest), cache.by_id) == ({"new": key}, {"key_1": key})
    cache.renew(key, replace(ROW, digest="newer"), 3)
    assert (dict(cache.by_digest), cache.by_id) == ({}, {})


def test_the_least_recently_used_key_is_dropped(clock: Clock) -> None:
    cache = a_cache(clock, max_keys=2)
    for number in range(2):
        cache.keep(f"d{number}", replace(ROW, id=f"key_{number}", digest=f"d{number}"), number + 1)
    cache.by_digest.move_to_end("d0")
    cache.keep("d2", replace(ROW, id="key_2", digest="d2"), 3)
    assert (set(cache.by_digest), set(cache.by_id)) == ({"d0", "d2"}, {"key_0", "key_2"})


def test_unknown_digests_are_bounded_and_believed_for_a_while(clock: Clock) -> None:
    cache = a_cache(clock, max_unknown=2)
    for digest in ("a", "b", "c"):
        cache.keep_unknown(digest)
    assert [cache.is_unknown(digest) for digest in ("a", "b", "c")] == [False, True, True]
    clock.now = UNKNOWN_SECONDS
    assert not cache.is_unknown("c")


def test_a_principal_follows_the_configuration(clock: Clock) -> None:
    live = Live(config())
    cache = KeyCache(live, clock=clock)
    key = cache.keep("d", ROW, 1)
    live.replace(live.current.model_copy(update={"limits": Limits(max_tokens=9)}))
    assert cache.principal(key).limits == Limits(max_tokens=9)
    assert cache.principal(key) is key.principal
