"""Overlay layers as OCI layers: whiteouts, modes, links, and digests that do not depend on times."""

import io
import os
import tarfile
from pathlib import Path

import pytest
from images.layout import pack


def packed(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        pack(folder, archive)
    return buffer.getvalue()


def members(folder: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(packed(folder))) as archive:
        return {each.name: each for each in archive.getmembers()}


def test_files_folders_and_links_keep_their_modes_and_lose_their_times(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir(mode=0o755)
    (tmp_path / "bin/run").write_text("x")
    (tmp_path / "bin/run").chmod(0o755)
    (tmp_path / "link").symlink_to("bin/run")
    (tmp_path / "folder").symlink_to("bin")
    first = packed(tmp_path)
    found = members(tmp_path)
    assert (found["bin/run"].mode, found["bin/run"].mtime) == (0o755, 0)
    assert (found["link"].linkname, found["folder"].linkname) == ("bin/run", "bin")
    os.utime(tmp_path / "bin/run", (1_900_000_000, 1_900_000_000))
    assert packed(tmp_path) == first


def test_a_deleted_file_is_a_whiteout(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("device nodes need root")
    os.mknod(tmp_path / "gone", 0o020000, os.makedev(0, 0))
    assert list(members(tmp_path)) == [".wh.gone"]
