"""The admin key of a deployment: there once the tables are, replaced with its secret, never weak."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.gateway.fakes import FakePublisher
from tests.net.upstream import until

from quarterdeck import ids
from quarterdeck.gateway.auth.authenticator import Authenticator
from quarterdeck.gateway.auth.bootstrap import BootstrapKey, checked
from quarterdeck.resources.tenancy.changes import Announcer
from quarterdeck.settings.config import Config
from quarterdeck.settings.environment import SecretVariable
from quarterdeck.settings.live import Live
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore

FIRST, SECOND = "sk-qd-" + "a1B2c3D4e5" * 4, "sk-qd-" + "z9Y8x7W6v5" * 4
NAME = "QUARTERDECK_BOOTSTRAP_KEY"


class Bench:
    def __init__(self, database: Database, folder: Path) -> None:
        self.file = folder / "key"
        self.file.write_text(FIRST + "\n")
        self.keys = KeyStore(database)
        self.publisher = FakePublisher()
        authenticator = Authenticator(self.keys, Live(Config(models=())))
        self.subject = BootstrapKey(
            SecretVariable(NAME, file=self.file),
            self.keys,
            Announcer(authenticator, self.publisher),
            poll_seconds=0.001,
        )

    async def is_valid(self, secret: str) -> bool:
        row = await self.keys.find(ids.digest(secret))
        return row is not None and row.revoked is None


@pytest.fixture
async def bench(database: Database, tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(database, tmp_path)
    task = asyncio.create_task(made.subject.run())
    await until(lambda: len(made.publisher.published) >= 1)
    yield made
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_the_key_is_there_and_announced_once(bench: Bench) -> None:
    assert await bench.is_valid(FIRST)
    row = await bench.keys.find(ids.digest(FIRST))
    assert row is not None
    assert [change.key for change in bench.publisher.published] == [row.id]


async def test_a_new_secret_in_the_file_is_a_new_key_and_the_former_is_revoked(bench: Bench) -> None:
    bench.file.write_text(SECOND)
    await until(lambda: len(bench.publisher.published) == 3)
    assert await bench.is_valid(SECOND) and not await bench.is_valid(FIRST)


async def test_a_malformed_secret_in_the_file_keeps_the_former_key(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.file.write_text("short")
    await until(lambda: "keeping the former bootstrap key" in caplog.text)
    assert await bench.is_valid(FIRST)
    assert "short" not in caplog.text.replace("too short", "")
    bench.file.unlink()
    await until(lambda: "No such file" in caplog.text)
    assert await bench.is_valid(FIRST)


async def test_a_revoked_key_stays_revoked_and_that_is_said(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    row, _ = await KeyStore(database).ensure_bootstrap(FIRST)
    await KeyStore(database).revoke(row.id)
    bench = Bench(database, tmp_path)
    task = asyncio.create_task(bench.subject.run())
    await until(lambda: "was revoked or replaced, and stays so" in caplog.text)
    assert not await bench.is_valid(FIRST)
    task.cancel()


async def test_a_secret_of_another_key_is_not_taken_over(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    await KeyStore(database).create(secret=FIRST, name="somebody's")
    bench = Bench(database, tmp_path)
    task = asyncio.create_task(bench.subject.run())
    await until(lambda: "belongs to another key already" in caplog.text)
    row = await bench.keys.find(ids.digest(FIRST))
    assert row is not None and not row.is_admin
    task.cancel()


@pytest.mark.parametrize("secret", ["", "short", "a" * 40, "with space " * 4, "ä" * 40, "x" * 257, "abc\n" * 12])
def test_a_weak_or_malformed_secret_is_refused_without_repeating_it(secret: str) -> None:
    with pytest.raises(ValueError, match=NAME) as raised:
        checked(secret, NAME)
    assert not secret or secret not in str(raised.value)
