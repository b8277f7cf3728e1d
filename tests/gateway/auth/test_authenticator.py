"""From a header to a Principal: cached, read, revoked, rotated, and without a database."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from tests.gateway.fakes import FakeKeys, config, key_row

from quarterdeck import ids
from quarterdeck.errors import AuthenticationError, ServiceUnavailableError
from quarterdeck.gateway.auth.authenticator import Authenticator
from quarterdeck.gateway.auth.key_cache import UNKNOWN_SECONDS
from quarterdeck.gateway.auth.rereading import FRESH_SECONDS, RETRY_SECONDS
from quarterdeck.resources.tenancy.changes import Change
from quarterdeck.settings.config import Config
from quarterdeck.settings.limits import Limits
from quarterdeck.settings.live import Live
from quarterdeck.store.keys import KeyRow
from quarterdeck.store.terms import Terms

HEADER = b"Bearer sk-qd-user"


class Bench:
    """An authenticator whose clocks and configuration are set by hand."""

    def __init__(self, **bounds: int) -> None:
        self.keys = FakeKeys()
        self.keys.put("sk-qd-user", key_row(id="key_1"))
        self.now = 1000.0
        self.config = Live(config())
        self.outcomes: list[str] = []
        self.subject = Authenticator(
            self.keys,
            self.config,
            on_outcome=self.outcomes.append,
            wall=lambda: self.now,
            clock=lambda: self.now,
            **bounds,
        )

    def change(self, **fields: Any) -> None:
        self.keys.put("sk-qd-user", replace(key_row(id="key_1"), **fields))

    async def settle(self) -> None:
        """Wait for the reads in the background."""
        await self.subject._reader.idle()
        await asyncio.sleep(0)


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_a_key_is_read_once_and_known_then(bench: Bench) -> None:
    first = await bench.subject.authenticate(HEADER)
    assert await bench.subject.authenticate(HEADER) is first
    assert (bench.keys.asked, bench.outcomes) == (1, ["found", "cached"])


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "missing_api_key"),
        (b"", "missing_api_key"),
        (b"Bearer", "invalid_authorization_header"),
        (b"Bearer   ", "invalid_authorization_header"),
        (b"Basic dXNlcjpwYXNz", "invalid_authorization_header"),
        (b"sk-qd-user", "invalid_authorization_header"),
        (b"Bearer sk-qd-use", "invalid_api_key"),
        (b"Bearer sk-qd-user2", "invalid_api_key"),
        (b"Bearer sk-qd-user sk-qd-user", "invalid_api_key"),
        (b"Bearer \xff\xfe", "invalid_api_key"),
        (b"Bearer ' OR 1=1 --", "invalid_api_key"),
        (b"Bearer " + b"a" * 5000, "invalid_api_key"),
    ],
)
async def test_what_is_no_key_is_a_401_that_repeats_nothing_of_it(
    bench: Bench, header: bytes | None, code: str
) -> None:
    with pytest.raises(AuthenticationError) as caught:
        await bench.subject.authenticate(header)
    assert caught.value.code == code
    secret = (header or b"").partition(b" ")[2].strip().decode("latin-1")
    assert not secret or secret not in caught.value.message


async def test_the_scheme_may_be_written_in_any_case(bench: Bench) -> None:
    assert (await bench.subject.authenticate(b"bearer  sk-qd-user ")).key == "key_1"


async def test_an_unknown_key_is_not_looked_up_again_for_five_seconds(bench: Bench) -> None:
    for _ in range(3):
        with pytest.raises(AuthenticationError):
            await bench.subject.authenticate(b"Bearer sk-qd-new")
    assert bench.keys.asked == 1
    bench.keys.put("sk-qd-new", key_row(id="key_new"))
    bench.now += UNKNOWN_SECONDS
    assert (await bench.subject.authenticate(b"Bearer sk-qd-new")).key == "key_new"


async def test_many_who_come_at_once_are_one_look_up(bench: Bench) -> None:
    bench.keys.gate.clear()
    tasks = [asyncio.create_task(bench.subject.authenticate(HEADER)) for _ in range(50)]
    await asyncio.sleep(0)
    tasks[0].cancel()  # a caller that is cancelled does not cancel the read
    await asyncio.sleep(0)
    bench.keys.gate.set()
    found = await asyncio.gather(*tasks[1:])
    assert bench.keys.asked == 1
    assert {principal.key for principal in found} == {"key_1"}


async def test_an_unknown_key_without_a_database_is_a_503_and_not_a_401(bench: Bench) -> None:
    bench.keys.is_away = True
    with pytest.raises(ServiceUnavailableError) as caught:
        await bench.subject.authenticate(HEADER)
    assert (caught.value.status, caught.value.code) == (503, "auth_unavailable")
    bench.keys.is_away = False
    assert (await bench.subject.authenticate(HEADER)).key == "key_1"


async def test_a_known_key_goes_on_without_a_database(bench: Bench) -> None:
    await bench.subject.authenticate(HEADER)
    bench.keys.is_away = True
    for _ in range(100):
        bench.now += 60
        assert (await bench.subject.authenticate(HEADER)).key == "key_1"
        await bench.settle()


async def test_a_dead_database_is_not_asked_for_every_request(bench: Bench) -> None:
    await bench.subject.authenticate(HEADER)
    bench.keys.is_away = True
    bench.now += 60
    for _ in range(100):
        await bench.subject.authenticate(HEADER)
        await bench.settle()
    assert bench.keys.asked == 2


async def test_after_half_a_minute_a_key_is_read_again_beside_the_request(bench: Bench) -> None:
    await bench.subject.authenticate(HEADER)
    bench.change(revoked=1001.0)
    bench.now += FRESH_SECONDS + 1
    await bench.subject.authenticate(HEADER)  # still valid
    await bench.settle()
    with pytest.raises(AuthenticationError, match="revoked"):
        await bench.subject.authenticate(HEADER)


async def test_many_keys_are_read_again_together_and_go_on_meanwhile(bench: Bench) -> None:
    headers = [f"Bearer sk-qd-{number}".encode() for number in range(250)]
    for number, header in enumerate(headers):
        bench.keys.put(f"sk-qd-{number}", key_row(id=f"key_{number}"))
        await bench.subject.authenticate(header)
    before, asked = [bench.subject.known(header) for header in headers], bench.keys.asked
    bench.now += FRESH_SECONDS + 1
    assert [bench.subject.known(header) for header in headers] == before
    await bench.settle()
    assert bench.keys.asked == asked + 3
    assert [bench.subject.known(header) for header in headers] == before  # none is due again
    await bench.settle()
    assert bench.keys.asked == asked + 3


async def test_a_key_that_did_not_change_keeps_its_principal(bench: Bench) -> None:
    principal = await bench.subject.authenticate(HEADER)
    bench.now += FRESH_SECONDS + 1
    await bench.subject.authenticate(HEADER)
    await bench.settle()
    assert await bench.subject.authenticate(HEADER) is principal


async def test_a_key_that_vanished_is_unknown_after_the_reread(bench: Bench) -> None:
    await bench.subject.authenticate(HEADER)
    bench.keys.rows.clear()
    bench.now += FRESH_SECONDS + 1
    await bench.subject.authenticate(HEADER)
    await bench.settle()
    with pytest.raises(AuthenticationError):
        await bench.subject.authenticate(HEADER)


async def test_an_expired_key_is_refused_also_from_the_cache(bench: Bench) -> None:
    bench.change(expires=1010.0)
    await bench.subject.authenticate(HEADER)
    bench.now = 1010.0
    bench.keys.is_away = True
    with pytest.raises(AuthenticationError, match="expired"):
        await bench.subject.authenticate(HEADER)


async def test_a_newer_revision_has_the_key_read_again_once(bench: Bench) -> None:
    old = await bench.subject.authenticate(HEADER)
    fresh = await bench.subject.reread(old, 7)
    assert fresh.revision == 7
    assert (await bench.subject.authenticate(HEADER)).revision == 7
    await bench.subject.reread(old, 7)
    assert bench.keys.asked == 2


async def test_a_revoked_key_is_refused_at_the_next_revision(bench: Bench) -> None:
    old = await bench.subject.authenticate(HEADER)
    bench.change(revoked=1001.0)
    for _ in range(2):
        with pytest.raises(AuthenticationError, match="revoked"):
            await bench.subject.reread(old, 1)
    with pytest.raises(AuthenticationError, match="revoked"):
        await bench.subject.authenticate(HEADER)


async def test_a_revision_that_is_smaller_is_another_one(bench: Bench) -> None:
    """Redis lost its data and counts from 0 again."""
    old = await bench.subject.reread(await bench.subject.authenticate(HEADER), 7)
    bench.change(revoked=1001.0)
    with pytest.raises(AuthenticationError, match="revoked"):
        await bench.subject.reread(old, 1)


async def test_a_key_that_is_gone_is_refused_at_the_next_revision(bench: Bench) -> None:
    old = await bench.subject.authenticate(HEADER)
    bench.keys.rows.clear()
    with pytest.raises(AuthenticationError):
        await bench.subject.reread(old, 1)


async def test_a_reread_without_a_database_keeps_the_key_and_is_not_tried_for_every_request(bench: Bench) -> None:
    old = await bench.subject.authenticate(HEADER)
    bench.keys.is_away = True
    for _ in range(50):
        assert await bench.subject.reread(old, 1) is old
    assert bench.keys.asked == 2
    bench.keys.is_away = False
    bench.change(revoked=1001.0)
    bench.now += RETRY_SECONDS
    with pytest.raises(AuthenticationError):
        await bench.subject.reread(old, 1)


async def test_the_files_limits_go_before_the_keys_own_and_those_before_the_defaults(bench: Bench) -> None:
    changes = {"limits": {"max_tokens": 1}, "keys": {"named": {"limits": {"max_tokens": 3}}}}
    bench.config.replace(Config.model_validate({**bench.config.current.model_dump(), **changes}))
    bench.keys.put("a", key_row(name="other"))
    bench.keys.put("b", key_row(name="other", limits=Limits(max_tokens=2)))
    bench.keys.put("c", key_row(name="named", limits=Limits(max_tokens=2)))
    found = [(await bench.subject.authenticate(b"Bearer " + name)).limits.max_tokens for name in (b"a", b"b", b"c")]
    assert found == [1, 2, 3]


async def test_a_reloaded_file_changes_the_limits_of_known_keys(bench: Bench) -> None:
    assert (await bench.subject.authenticate(HEADER)).limits == Limits()
    bench.config.replace(bench.config.current.model_copy(update={"limits": Limits(max_tokens=9)}))
    assert (await bench.subject.authenticate(HEADER)).limits == Limits(max_tokens=9)
    assert bench.keys.asked == 1


async def test_the_cache_is_bounded_and_keeps_what_is_used() -> None:
    bench = Bench(max_keys=3, max_unknown=3)
    for i in range(5):
        bench.keys.put(f"k{i}", key_row(id=f"id{i}"))
        await bench.subject.authenticate(HEADER)
        await bench.subject.authenticate(f"Bearer k{i}".encode())
        with pytest.raises(AuthenticationError):
            await bench.subject.authenticate(f"Bearer unknown{i}".encode())
    cache = bench.subject._cache
    assert len(cache.by_digest) == len(cache.by_id) == len(cache.unknown) == 3
    asked = bench.keys.asked
    await bench.subject.authenticate(HEADER)
    assert bench.keys.asked == asked


async def test_keys_with_a_common_beginning_are_different_keys(bench: Bench) -> None:
    """CVE-2026-35030 cached by a token's first twenty characters."""
    prefix = "sk-qd-" + "a" * 200
    bench.keys.put(prefix + "1", key_row(id="one"))
    bench.keys.put(prefix + "2", key_row(id="two"))
    assert (await bench.subject.authenticate(f"Bearer {prefix}1".encode())).key == "one"
    assert (await bench.subject.authenticate(f"Bearer {prefix}2".encode())).key == "two"
    with pytest.raises(AuthenticationError):
        await bench.subject.authenticate(f"Bearer {prefix}3".encode())


async def test_what_is_forgotten_is_read_again(bench: Bench) -> None:
    await bench.subject.authenticate(HEADER)
    bench.subject.forget("key_1")
    await bench.subject.authenticate(HEADER)
    assert bench.keys.asked == 2


async def test_a_confirmed_key_is_read_now(bench: Bench) -> None:
    old = await bench.subject.authenticate(HEADER)
    bench.change(is_admin=True)
    assert (await bench.subject.confirm(old)).is_admin
    bench.change(revoked=1001.0)
    with pytest.raises(AuthenticationError, match="revoked"):
        await bench.subject.confirm(old)
    bench.keys.rows.clear()
    with pytest.raises(AuthenticationError):
        await bench.subject.confirm(old)
    bench.keys.is_away = True
    with pytest.raises(ServiceUnavailableError):
        await bench.subject.confirm(old)


# what changed elsewhere


async def test_a_revoked_key_is_refused_once_the_word_has_come(bench: Bench) -> None:
    await bench.subject.authenticate(HEADER)
    bench.change(revoked=1001.0)
    await bench.subject.catch_up([Change("default", key="key_1", revision=1)])
    assert bench.subject.known(HEADER) is None
    with pytest.raises(AuthenticationError, match="revoked"):
        await bench.subject.authenticate(HEADER)


@pytest.mark.parametrize(
    "change", [Change("default", team="red", revision=5), Change("default", revision=5), Change("default", revision=0)]
)
async def test_a_change_of_team_or_org_reaches_every_key_of_it(bench: Bench, change: Change) -> None:
    await bench.subject.catch_up([Change("default", key="nobody", revision=4)])
    rows = {name: key_row(id=name, team=team) for name, team in (("a", "red"), ("b", "red"))}
    for name, row in rows.items():
        bench.keys.put(name, row)
        await bench.subject.authenticate(f"Bearer {name}".encode())
    for name, row in rows.items():
        bench.keys.put(name, replace(row, of_team=Terms(Limits(max_tokens=3))))
    asked = bench.keys.asked
    await bench.subject.catch_up([change])
    for name in rows:
        found = bench.subject.known(f"Bearer {name}".encode())
        assert found is not None
        assert found.limits.max_tokens == 3
    assert bench.keys.asked == asked + 1, "all keys in one query"


async def test_a_change_of_another_key_asks_nothing(bench: Bench) -> None:
    await bench.subject.authenticate(HEADER)
    await bench.subject.catch_up(
        [Change("default", key="key_2", revision=1)]
    )  # an organisation's first change: all its keys are read
    asked = bench.keys.asked
    await bench.subject.catch_up([Change("default", key="key_3", revision=2)])
    await bench.subject.catch_up([Change("other", key="key_3", revision=9)])
    assert bench.keys.asked == asked


async def test_after_the_word_an_admission_need_not_read_again(bench: Bench) -> None:
    old = await bench.subject.authenticate(HEADER)
    await bench.subject.catch_up([Change("default", key="key_2", revision=6)])
    asked = bench.keys.asked
    assert (await bench.subject.reread(old, 6)).revision == 6
    assert (await bench.subject.authenticate(HEADER)).revision == 6
    assert bench.keys.asked == asked


async def test_where_a_word_was_missed_all_keys_of_the_org_are_read(bench: Bench) -> None:
    await bench.subject.authenticate(HEADER)
    await bench.subject.catch_up([Change("default", key="key_2", revision=1)])
    bench.change(revoked=1001.0)
    await bench.subject.catch_up([Change("default", key="key_2", revision=3)])
    assert bench.subject.known(HEADER) is None


async def test_after_a_new_connection_everything_is_read(bench: Bench) -> None:
    bench.keys.put("other", key_row(id="key_o", org="other"))
    for header in (HEADER, b"Bearer other"):
        await bench.subject.authenticate(header)
    bench.change(revoked=1001.0)
    bench.keys.rows.pop(ids.digest("other"))
    await bench.subject.catch_up(None)
    for header in (HEADER, b"Bearer other"):
        with pytest.raises(AuthenticationError):
            await bench.subject.authenticate(header)


async def test_a_row_that_was_asked_for_before_the_word_does_not_stay(bench: Bench) -> None:
    """The read started before the change and brings the old row; it is repeated."""
    bench.keys.gate.clear()
    waiting = asyncio.create_task(bench.subject.authenticate(HEADER))
    for _ in range(3):
        await asyncio.sleep(0)
    assert bench.keys.asked == 1
    await bench.subject.catch_up([Change("default", key="key_1", revision=1)])
    bench.keys.gate.set()
    await waiting
    assert bench.keys.asked == 2


async def test_an_older_reading_that_ends_last_changes_nothing(bench: Bench) -> None:
    await bench.subject.authenticate(HEADER)
    late = asyncio.get_running_loop().create_future()
    old = bench.keys.rows[ids.digest("sk-qd-user")]
    retrieve_all = bench.keys.retrieve_all

    async def slow(ids: Sequence[str]) -> dict[str, KeyRow]:
        await late
        return {"key_1": old}

    bench.keys.retrieve_all = slow  # type: ignore[method-assign]
    bench.now += FRESH_SECONDS + 1
    await bench.subject.authenticate(HEADER)  # starts a slow read in the background
    await asyncio.sleep(0)
    bench.keys.retrieve_all = retrieve_all  # type: ignore[method-assign]
    bench.change(revoked=1001.0)
    await bench.subject.catch_up([Change("default", key="key_1", revision=1)])
    late.set_result(None)
    await bench.settle()
    with pytest.raises(AuthenticationError, match="revoked"):
        await bench.subject.authenticate(HEADER)


@pytest.mark.parametrize("how", ["word", "admission", "admin", "new secret", "time"])
async def test_a_replaced_secret_opens_nothing_however_it_is_found_out(bench: Bench, how: str) -> None:
    old = await bench.subject.authenticate(HEADER)
    row = bench.keys.rows.pop(ids.digest("sk-qd-user"))
    bench.keys.put("sk-qd-new", row)
    if how == "word":
        await bench.subject.catch_up([Change("default", key="key_1", revision=1)])
    elif how == "admission":
        with pytest.raises(AuthenticationError):
            await bench.subject.reread(old, 1)
    elif how == "admin":
        with pytest.raises(AuthenticationError):
            await bench.subject.confirm(old)
    elif how == "new secret":
        await bench.subject.authenticate(b"Bearer sk-qd-new")
    else:
        bench.now += FRESH_SECONDS + 1
        await bench.subject.authenticate(HEADER)
        await bench.settle()
    with pytest.raises(AuthenticationError):
        await bench.subject.authenticate(HEADER)
    assert (await bench.subject.authenticate(b"Bearer sk-qd-new")).key == "key_1"
    assert bench.subject.known(b"Bearer sk-qd-new") is not None


async def test_without_a_database_the_word_takes_no_key_away(bench: Bench) -> None:
    await bench.subject.authenticate(HEADER)
    bench.keys.is_away = True
    with pytest.raises(ServiceUnavailableError):
        await bench.subject.catch_up([Change("default", key="key_1", revision=1)])
    assert (await bench.subject.authenticate(HEADER)).key == "key_1"
    assert bench.subject._rereading.caught_up == {}


async def test_what_a_key_stands_for_shows_neither_the_secret_nor_its_digest(bench: Bench) -> None:
    """Principals and rows reach logs and records, and a digest is enough to find a key."""
    principal = await bench.subject.authenticate(HEADER)
    row = bench.keys.rows[ids.digest("sk-qd-user")]
    for shown in (repr(principal), repr(row), str(principal)):
        assert "sk-qd-user" not in shown
        assert ids.digest("sk-qd-user") not in shown
