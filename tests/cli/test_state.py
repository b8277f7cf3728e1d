"""The state folder: mode, lock and leftover processes."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from quarterdeck import processes
from quarterdeck.cli import state


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_folders_are_this_users_only(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    assert state.prepare(folder) == []
    assert {mode(path) for path in (folder, folder / "redis", folder / "logs", folder / "spool")} == {0o700}


def test_a_readable_folder_is_reported_and_not_changed(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o755)
    assert state.prepare(folder) == [
        f"{folder} is readable by other users (mode 0755): run `chmod 700 {folder}`",
    ]
    assert (mode(folder), mode(folder / "redis")) == (0o755, 0o700)


@pytest.mark.parametrize("where", ["state", "state/redis", "state/logs", "state/spool"])
def test_a_folder_that_others_can_write_to_is_refused(where: str, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    folder = tmp_path / where
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    with pytest.raises(state.StateError, match=r"is writable by other users \(mode 0777\): run `chmod 700 "):
        state.prepare(tmp_path / "state")
    assert mode(folder) == 0o777


def test_another_users_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(state.StateError, match=r"belongs to another user \(uid \d+\): set QUARTERDECK_STATE"):
        state.prepare(tmp_path)


def test_a_second_up_is_refused_in_one_line(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from quarterdeck.cli import state\nwith state.locked(pathlib.Path(sys.argv[1])): pass"
    )
    with state.locked(tmp_path):
        assert state.is_locked(tmp_path)
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
        )
    assert f"already running (pid {os.getpid()}" in done.stderr
    assert not state.is_locked(tmp_path)


def test_what_an_earlier_run_left_behind_is_found_by_its_mark_and_ended(tmp_path: Path) -> None:
    sleeper = [sys.executable, "-c", "print(1, flush=True); import time; time.sleep(600)"]
    environ = {**os.environ, state.RUN_VARIABLE: state.run_id(tmp_path)}
    with (
        subprocess.Popen(sleeper, env=environ, stdout=subprocess.PIPE) as ours,
        subprocess.Popen(sleeper, stdout=subprocess.PIPE) as another,
    ):
        assert ours.stdout and another.stdout
        ours.stdout.readline()
        another.stdout.readline()
        assert state.leftover_pids(tmp_path) == [ours.pid]
        assert state.stop_leftovers(tmp_path) == 1
        assert not processes.is_alive(ours.pid)
        assert processes.is_alive(another.pid)
        another.kill()
