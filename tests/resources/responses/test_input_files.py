"""What the files of an input may have together."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.errors import BadRequestError
from quarterdeck.resources.files.service import Files
from quarterdeck.resources.responses.input_files import InputFiles
from quarterdeck.settings.file_storage import MIB, FilesConfig
from quarterdeck.store.blobs.folder import FolderBlobs
from quarterdeck.store.database import Database
from quarterdeck.store.files import FileStore
from quarterdeck.store.ownership import Owner

OWNER = Owner("default", "team", "key_1")


async def content() -> AsyncIterator[bytes]:
    yield b"a" * (MIB // 2)


def naming(file_id: str, times: int) -> list[dict[str, Any]]:
    return [{"type": "message", "content": [{"type": "input_file", "file_id": file_id}] * times}]


async def test_a_file_that_is_named_twice_counts_twice(database: Database, tmp_path: Path) -> None:
    files = Files(FileStore(database), FolderBlobs(tmp_path), lambda: FilesConfig(max_input_mb=1))
    row = await files.create(OWNER, content(), filename="a.txt", purpose="user_data")
    reads = InputFiles(files)
    (item,) = await reads.read([], naming(row.id, 2), OWNER)
    assert [part["type"] for part in item["content"]] == ["input_text", "input_text"]
    for context, own in (([], naming(row.id, 3)), (naming(row.id, 2), naming(row.id, 1))):
        with pytest.raises(BadRequestError, match="max_input_mb"):
            await reads.read(context, own, OWNER)
