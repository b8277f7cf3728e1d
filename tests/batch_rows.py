"""Batches in the database, for tests: a batch has an input file."""

import time

from quarterdeck.store.batches import NewBatch
from quarterdeck.store.blobs.interface import BlobSummary
from quarterdeck.store.database import Database
from quarterdeck.store.files import FileRow, FileStore, NewFile
from quarterdeck.store.ownership import Owner

OWNER = Owner("default", "team", "key_1")
NEW = NewBatch(
    endpoint="/v1/embeddings",
    input_file="file-1",
    input_blob="files/blob_1",
    input_bytes=10,
    window="24h",
    window_seconds=86_400,
    output_expires=None,
    metadata={"a": "b"},
)


async def add_input(
    database: Database, owner: Owner = OWNER, *, number: int = 1, expires: float | None = None
) -> FileRow:
    """The file that `NEW` names. Its blob is in no storage."""
    store, blob = FileStore(database), f"files/blob_{number}"
    await store.announce(blob, now=time.time())
    new = NewFile(
        id=f"file-{number}",
        owner=owner,
        created=time.time(),
        expires=expires,
        filename="in.jsonl",
        purpose="batch",
        mime="application/jsonl",
        blob=blob,
        summary=BlobSummary(10, "aa", "bb"),
    )
    return await store.create(new, 1000)
