"""What a deletion covers is gone from the results of batches, wherever they are; all else stays."""

import json
import time
from collections.abc import AsyncIterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.batch_rows import NEW, OWNER, add_input
from tests.records import a_record

from quarterdeck.protocol.batches.results import Result, answered, without_content
from quarterdeck.resources.batches.result_deletion import ResultDeletion
from quarterdeck.resources.files.service import Files
from quarterdeck.settings.file_storage import FilesConfig
from quarterdeck.store.batch_contents import BatchContents
from quarterdeck.store.batches import KIND, BatchRow, BatchStore, NewResult
from quarterdeck.store.blobs.folder import FolderBlobs
from quarterdeck.store.contents import DeleteBy, Deletion
from quarterdeck.store.database import Database, Transaction
from quarterdeck.store.files import FileRow, FileStore
from quarterdeck.store.jobs import Job, JobStore
from quarterdeck.store.ledger import Ledger
from quarterdeck.store.ownership import Owner

SECRET = "my secret"


async def no_event(transaction: Transaction) -> None:
    pass


def a_result(batch: str, line: int, *, status: int = 200) -> Result:
    body = json.dumps({"choices": [{"message": {"content": f'{SECRET} {line} "request_id":"req_of_another"'}}]})
    return answered(batch, line, f"line-{line}", status=status, request=f"req_{line}", body=body.encode())


class Bench:
    """A batch of lines 1 to 4: 1 and 3 are of the user `u` in the session `s`. Line 3 has failed."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.blobs = FolderBlobs(folder)
        self.files = Files(FileStore(database), self.blobs, FilesConfig)
        self.store, self.jobs = BatchStore(database, JobStore(database)), JobStore(database)
        self.deletion = ResultDeletion(BatchContents(database), self.files)

    async def begin(self) -> tuple[BatchRow, Job]:
        await add_input(self.database)
        batch = await self.store.create(NEW, OWNER, most=9)
        (job,) = await self.jobs.claim(KIND, seconds=600, limit=1)
        now = time.time()
        await self.store.begin(job, total=4, model="m", now=now - 60)
        results = [a_result(batch.id, line, status=400 if line == 3 else 200) for line in range(1, 5)]
        await self.store.record(job, [NewResult(each.line, each.is_error, each.text) for each in results], b"")
        users = {1: "u", 3: "u"}
        records = [
            a_record(
                id=f"req_{line}",
                org=OWNER.org,
                key=OWNER.key,
                started=now - 30,
                priority=-1,
                user=users.get(line, "v"),
                session="s" if line in users else None,
            )
            for line in range(1, 5)
        ]
        await Ledger(self.database).insert(records)
        return batch, job

    async def end(self, batch: BatchRow, job: Job) -> None:
        names: dict[str, str] = {}
        for name, is_error in (("output_file", False), ("error_file", True)):
            texts = self.store.results(batch.id, is_error=is_error)
            row = await self.files.create(OWNER, texts, filename=name, purpose="batch_output")
            names[name] = row.id
        await self.store.finish(job, "completed", now=time.time(), record_event=no_event, **names)

    async def lines(self, batch: BatchRow) -> dict[str, Any]:
        row = await self.store.retrieve(batch.id, OWNER)
        found: list[bytes] = []
        for name, is_error in ((row.output_file, False), (row.error_file, True)):
            if name is None:
                found += [text async for text in self.store.results(batch.id, is_error=is_error)]
                continue
            file = await self.files.retrieve(name, OWNER)
            content = b"".join([piece async for piece in await self.files.open(file)])
            assert len(content) == file.bytes
            found += content.splitlines()
        return {line["custom_id"]: line for line in map(json.loads, found)}


@pytest.fixture
def bench(database: Database, tmp_path: Path) -> Bench:
    return Bench(database, tmp_path)


@pytest.mark.parametrize("has_ended", [False, True])
@pytest.mark.parametrize(
    ("by", "value", "gone"), [("user", "u", {1, 3}), ("session", "s", {1, 3}), ("request", "req_2", {2})]
)
async def test_contents_go_and_each_line_keeps_its_place(
    bench: Bench, by: DeleteBy, value: str, gone: set[int], *, has_ended: bool
) -> None:
    batch, job = await bench.begin()
    if has_ended:
        await bench.end(batch, job)
    deletion = Deletion(OWNER.org, by, value, time.time())
    assert await bench.deletion.apply(deletion) == len(gone)
    lines = await bench.lines(batch)
    assert len(lines) == 4
    for number in range(1, 5):
        line = lines[f"line-{number}"]
        is_there = SECRET in json.dumps(line["response"]["body"])
        assert is_there is (number not in gone)
        assert (line["error"] or {}).get("code") == (None if is_there else "content_deleted")
        assert line["response"]["request_id"] == f"req_{number}"
    row = await bench.store.retrieve(batch.id, OWNER)
    assert (row.completed, row.failed) == (3, 1)
    assert await bench.deletion.apply(deletion) == 0


async def test_a_file_that_lost_contents_is_the_same_file_and_its_former_content_is_deleted(bench: Bench) -> None:
    batch, job = await bench.begin()
    await bench.end(batch, job)
    row = await bench.store.retrieve(batch.id, OWNER)
    assert row.output_file is not None
    before, used = await bench.files.retrieve(row.output_file, OWNER), await bench.files.store.usage(OWNER.org)
    await bench.deletion.apply(Deletion(OWNER.org, "user", "v", time.time()))
    after = await bench.files.retrieve(row.output_file, OWNER)
    assert (after.id, after.created, after.filename) == (before.id, before.created, before.filename)
    assert after.sha256 != before.sha256 and after.blob != before.blob
    names = {entry.name async for entry in bench.blobs.entries("files/")}
    assert after.blob in names and before.blob not in names
    assert await bench.files.store.usage(OWNER.org) == used - before.bytes + after.bytes


@pytest.mark.parametrize(
    "changes",
    [{"org": "another"}, {"value": "w"}, {"at": 10.0}],
)
async def test_what_a_deletion_does_not_cover_stays(bench: Bench, changes: dict[str, Any]) -> None:
    batch, job = await bench.begin()
    await bench.end(batch, job)
    before = await bench.lines(batch)
    deletion = replace(Deletion(OWNER.org, "user", "u", time.time()), **changes)
    assert await bench.deletion.apply(deletion) == 0
    assert await bench.lines(batch) == before


async def test_two_deletions_at_once_are_both_applied(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, job = await bench.begin()
    await bench.end(batch, job)
    one, other = (Deletion(OWNER.org, "request", f"req_{line}", time.time()) for line in (1, 2))
    replace, of_others = bench.files.replace, ResultDeletion(BatchContents(bench.database), bench.files)

    async def after_another(row: FileRow, owner: Owner, pieces: AsyncIterable[bytes]) -> None:
        monkeypatch.setattr(bench.files, "replace", replace)
        assert await of_others.apply(other) == 1
        await replace(row, owner, pieces)

    monkeypatch.setattr(bench.files, "replace", after_another)
    assert await bench.deletion.apply(one) == 1
    lines = await bench.lines(batch)
    assert [lines[f"line-{line}"]["error"] is not None for line in (1, 2, 4)] == [True, True, False]


async def test_a_file_whose_content_is_lost_is_passed_over(bench: Bench) -> None:
    batch, job = await bench.begin()
    await bench.end(batch, job)
    row = await bench.store.retrieve(batch.id, OWNER)
    await bench.blobs.delete((await bench.files.retrieve(str(row.output_file), OWNER)).blob)
    assert await bench.deletion.apply(Deletion(OWNER.org, "user", "u", time.time())) == 1


async def test_files_that_were_deleted_are_passed_over(bench: Bench) -> None:
    batch, job = await bench.begin()
    await bench.end(batch, job)
    row = await bench.store.retrieve(batch.id, OWNER)
    await bench.files.delete(str(row.output_file), OWNER)
    assert await bench.deletion.apply(Deletion(OWNER.org, "user", "u", time.time())) == 1


def test_a_line_without_an_answer_has_no_content() -> None:
    text = b'{"id":"a","custom_id":"b","response":null,"error":{"code":"batch_expired","message":"x"}}'
    assert without_content(text, {"b"}) is None
