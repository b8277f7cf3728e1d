"""A folder's list of files is written to the disk."""

import os
import stat
from pathlib import Path

import pytest

from quarterdeck.durability import sync_folder


def test_the_folder_itself_is_written_and_its_descriptor_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    synced: list[int] = []

    def fsync(descriptor: int) -> None:
        assert stat.S_ISDIR(os.fstat(descriptor).st_mode)
        opened.append(descriptor)
        synced.append(os.fstat(descriptor).st_ino)

    closed: list[int] = []
    close = os.close
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "close", lambda descriptor: (closed.append(descriptor), close(descriptor)))
    sync_folder(tmp_path)
    assert synced == [tmp_path.stat().st_ino]
    assert set(opened) <= set(closed)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "none")
