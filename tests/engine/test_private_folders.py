"""Folders for Ray's sessions and temporary files: private, short enough for socket paths, never another user's."""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import servers

from quarterdeck.engine.private_folders import (
    SOCKET_PATH_LIMIT,
    SOCKET_TAIL,
    FolderInUseError,
    UnsafeFolderError,
    make_private,
    ray_folder,
    short_folder,
)


@pytest.fixture
def short() -> Iterator[Path]:
    folder = servers.short_folder()
    yield folder
    shutil.rmtree(folder)


def long_folder(parent: Path) -> Path:
    return parent / ("state" + "x" * SOCKET_PATH_LIMIT) / "ray"


def mode(folder: Path) -> int:
    return stat.S_IMODE(folder.stat().st_mode)


def test_a_short_path_is_used_as_it_is(short: Path) -> None:
    assert short_folder(short / "r") == short / "r"
    assert mode(short / "r") == 0o700


def test_a_long_path_is_replaced_by_a_private_folder_with_a_random_name(short: Path, tmp_path: Path) -> None:
    first, second = (short_folder(long_folder(tmp_path / name), [short]) for name in "ab")
    assert first.parent == second.parent == short
    assert first != second
    assert mode(first) == 0o700
    assert len(os.fsencode(first)) + SOCKET_TAIL <= SOCKET_PATH_LIMIT
    assert short_folder(long_folder(tmp_path / "a"), [short]) == first, "the next start cleans it up"


def test_the_length_is_counted_in_bytes(short: Path) -> None:
    characters = SOCKET_PATH_LIMIT - SOCKET_TAIL - len(str(short)) - 1
    assert short_folder(short / ("\N{GREEK SMALL LETTER ALPHA}" * characters), [short]).name.startswith("quarterdeck-")


@pytest.mark.parametrize("kind", ["link", "open", "file", "gone"])
def test_a_recorded_folder_that_is_not_private_is_replaced(kind: str, short: Path, tmp_path: Path) -> None:
    wanted = long_folder(tmp_path)
    first = short_folder(wanted, [short])
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
    assert short_folder(wanted, [short]) != first
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
        short_folder(short / "link")
    (short / "open").mkdir(mode=0o755)
    with pytest.raises(UnsafeFolderError, match=r"mode 0755"):
        short_folder(short / "open")
    assert mode(short / "open") == 0o755


def test_a_place_where_others_could_replace_the_folder_is_not_used(short: Path, tmp_path: Path) -> None:
    short.chmod(0o777)
    with pytest.raises(UnsafeFolderError, match="set QUARTERDECK_STATE or TMPDIR"):
        short_folder(long_folder(tmp_path), [short])
    short.chmod(0o1777)
    assert short_folder(long_folder(tmp_path), [short]).parent == short


def test_files_of_the_last_run_are_removed(short: Path) -> None:
    for _ in range(2):
        environ: dict[str, str] = {}
        with ray_folder(short, environ) as folder:
            assert list(folder.iterdir()) == list(Path(environ["TMPDIR"]).iterdir()) == []
            folder.chmod(0o777)  # as Ray does
            (folder / "session_x").mkdir()
            (Path(environ["TMPDIR"]) / "old").write_text("x", encoding="utf-8")
            assert {mode(folder.parent), mode(Path(environ["TMPDIR"]))} == {0o700}


def test_a_link_in_place_of_a_folder_is_not_followed(short: Path, tmp_path: Path) -> None:
    with ray_folder(short, {}) as folder:
        pass
    (tmp_path / "kept").write_text("x", encoding="utf-8")
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(UnsafeFolderError, match="is a link"), ray_folder(short, {}):
        pass
    assert (tmp_path / "kept").exists()


def test_a_temporary_directory_that_the_user_set_is_kept(short: Path) -> None:
    environ = {"TMPDIR": "/somewhere"}
    with ray_folder(short, environ):
        assert environ == {"TMPDIR": "/somewhere"}


def test_one_engine_door_per_state_folder(short: Path) -> None:
    with ray_folder(short, {}), pytest.raises(FolderInUseError, match="another engine door"), ray_folder(short, {}):
        pass
    with ray_folder(short, {}):
        pass
