"""Folders for Ray's sessions and temporary files: private, short enough for socket paths, never another user's."""

import os
import stat
from pathlib import Path

import pytest
from tests.servers import short_folder

from quarterdeck.engine.private_folders import (
    SOCKET_PATH_LIMIT,
    SOCKET_TAIL,
    UnsafeFolderError,
    make_private,
    session_folder,
    temporary_folder,
)


@pytest.fixture
def short() -> Path:
    return short_folder()


def long_folder(parent: Path) -> Path:
    return parent / ("state" + "x" * SOCKET_PATH_LIMIT) / "ray"


def mode(folder: Path) -> int:
    return stat.S_IMODE(folder.stat().st_mode)


def test_a_short_path_is_used_as_it_is(short: Path) -> None:
    assert session_folder(short / "r") == short / "r"
    assert mode(short / "r") == 0o700


def test_a_long_path_is_replaced_by_a_private_folder_with_a_random_name(short: Path, tmp_path: Path) -> None:
    first, second = (session_folder(long_folder(tmp_path / name), [short]) for name in "ab")
    assert first.parent == second.parent == short
    assert first != second
    assert mode(first) == 0o700
    assert len(os.fsencode(first)) + SOCKET_TAIL <= SOCKET_PATH_LIMIT
    assert session_folder(long_folder(tmp_path / "a"), [short]) == first, "the next start cleans it up"


def test_the_length_is_counted_in_bytes(short: Path) -> None:
    characters = SOCKET_PATH_LIMIT - SOCKET_TAIL - len(str(short)) - 1
    assert session_folder(short / ("\N{GREEK SMALL LETTER ALPHA}" * characters), [short]).name.startswith(
        "quarterdeck-"
    )


@pytest.mark.parametrize("kind", ["link", "open", "file", "gone"])
def test_a_recorded_folder_that_is_not_private_is_replaced(kind: str, short: Path, tmp_path: Path) -> None:
    wanted = long_folder(tmp_path)
    first = session_folder(wanted, [short])
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "session_x").mkdir()
    if kind == "open":
        first.chmod(0o777)
    else:
        first.rmdir()
    if kind == "link":
        first.symlink_to(victim)
    elif kind == "file":
        first.write_text("x", encoding="utf-8")
    assert session_folder(wanted, [short]) != first
    assert (victim / "session_x").is_dir()


def test_another_users_folder_is_refused(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = short / "r"
    make_private(folder)
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(UnsafeFolderError, match="belongs to another user"):
        make_private(folder)


def test_a_link_and_an_open_folder_are_refused(short: Path) -> None:
    (short / "link").symlink_to(short)
    with pytest.raises(UnsafeFolderError, match="is a link"):
        session_folder(short / "link")
    (short / "open").mkdir(mode=0o755)
    with pytest.raises(UnsafeFolderError, match=r"mode 0755"):
        session_folder(short / "open")
    assert mode(short / "open") == 0o755


def test_a_place_where_others_could_replace_the_folder_is_not_used(short: Path, tmp_path: Path) -> None:
    short.chmod(0o777)
    with pytest.raises(UnsafeFolderError, match="set QUARTERDECK_STATE or TMPDIR"):
        session_folder(long_folder(tmp_path), [short])
    short.chmod(0o1777)
    assert session_folder(long_folder(tmp_path), [short]).parent == short


def test_temporary_files_of_the_last_run_are_removed(short: Path) -> None:
    session = session_folder(short / "r")
    (temporary_folder(session) / "old").write_text("x", encoding="utf-8")
    assert list(temporary_folder(session).iterdir()) == []
    assert mode(session / "tmp") == 0o700


def test_temporary_files_do_not_follow_a_link(short: Path, tmp_path: Path) -> None:
    session = session_folder(short / "r")
    (tmp_path / "kept").write_text("x", encoding="utf-8")
    (session / "tmp").symlink_to(tmp_path)
    with pytest.raises(UnsafeFolderError):
        temporary_folder(session)
    assert (tmp_path / "kept").exists()
