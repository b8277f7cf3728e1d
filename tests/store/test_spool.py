"""Lines on disk: fsynced, and replayed once also after crashes."""

import errno
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from quarterdeck.store import spool as module
from quarterdeck.store.spool import Spool


def drained(spool: Spool) -> list[bytes]:
    """All waiting lines, file by file, as a replay takes them."""
    lines: list[bytes] = []
    while (taken := spool.take()) is not None:
        lines += spool.read(taken)
        spool.remove(taken)
    return lines


def test_what_goes_in_comes_out_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "deep" / "spool")
    assert (spool.take(), spool.waiting()) == (None, 0)
    spool.append([b"a", b"b"])
    spool.append([b"c"])
    assert spool.waiting() == 3
    assert drained(spool) == [b"a", b"b", b"c"]
    assert (drained(spool), spool.waiting()) == ([], 0)
    spool.append([b"d"])
    assert drained(spool) == [b"d"]
    assert list((tmp_path / "deep" / "spool").iterdir()) == []


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.append([b"a"])
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "spool").iterdir()] == [0o600]


def test_one_gateways_lines_are_anothers_to_replay(tmp_path: Path) -> None:
    one, other = Spool(tmp_path), Spool(tmp_path)
    one.append([b"a"])
    other.append([b"b"])
    assert sorted(drained(Spool(tmp_path))) == [b"a", b"b"]


def test_a_file_that_is_replayed_is_nobody_elses(tmp_path: Path) -> None:
    one, other = Spool(tmp_path), Spool(tmp_path)
    one.append([b"a"])
    taken = one.take()
    assert taken is not None
    assert (one.take(), other.take()) == (None, None)
    assert other.waiting() == 1
    one.put_back(taken)
    assert drained(other) == [b"a"]


def test_what_comes_while_a_file_is_replayed_goes_into_another(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append([b"a"])
    taken = spool.take()
    assert taken is not None
    spool.append([b"b"])
    assert list(spool.read(taken)) == [b"a"]
    spool.remove(taken)
    assert drained(spool) == [b"b"]


def test_a_last_line_that_was_cut_off_was_never_confirmed(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append([b"a", b"b"])
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"half")
    assert drained(Spool(tmp_path)) == [b"a"]


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path)
    spool.append([b"a"])
    write, room = os.write, 3

    def full(descriptor: int, data: bytes) -> int:
        nonlocal room
        if room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(descriptor, data[:room])
        room -= written
        return written

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        spool.append([b"bbbbb"])
    monkeypatch.undo()
    spool.append([b"bbbbb"])
    assert drained(spool) == [b"a", b"bbbbb"]


def test_a_write_that_takes_only_some_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:2]))
    spool = Spool(tmp_path)
    spool.append([b"hello", b"world"])
    assert drained(spool) == [b"hello", b"world"]


def test_a_file_stays_small_enough_to_be_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 100)
    spool = Spool(tmp_path)
    for n in range(100):
        spool.append([b"%03d" % n])
    assert len(list(tmp_path.iterdir())) == 4
    assert sorted(drained(spool)) == [b"%03d" % n for n in range(100)]


def test_what_nobody_can_read_is_set_aside_and_not_replayed(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    aside = spool.set_aside([b"?"])
    assert aside.read_bytes() == b"?\n"
    assert (spool.take(), spool.waiting()) == (None, 0)


def test_writers_and_replayers_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    """The race that matters: a file is taken while a line is appended to it."""
    lines, found = 300, []
    writing = [threading.Thread(target=_write, args=(Spool(tmp_path), name, lines)) for name in (b"a", b"b")]
    over = threading.Event()

    def replay() -> None:
        spool = Spool(tmp_path)
        while not over.is_set():
            found.extend(drained(spool))

    replaying = [threading.Thread(target=replay) for _ in range(2)]
    for thread in (*writing, *replaying):
        thread.start()
    for thread in writing:
        thread.join()
    over.set()
    for thread in replaying:
        thread.join()
    found += drained(Spool(tmp_path))
    assert sorted(found) == sorted(b"%b%d" % (name, n) for name in (b"a", b"b") for n in range(lines))


def _write(spool: Spool, name: bytes, lines: int) -> None:
    for n in range(lines):
        spool.append([b"%b%d" % (name, n)])


REPLAYER = """
    import sys
    from pathlib import Path
    from quarterdeck.store.spool import Spool

    taken = Spool(Path(sys.argv[1])).take()
    print(taken is not None, flush=True)
    sys.stdin.read()
"""


def test_another_process_keeps_its_file_as_long_as_it_lives(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append([b"a"])
    command = [sys.executable, "-c", textwrap.dedent(REPLAYER), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as replayer:
        assert replayer.stdout is not None
        assert replayer.stdout.readline() == b"True\n"
        assert spool.take() is None
        replayer.kill()
    assert drained(spool) == [b"a"]
