"""Logs of managed processes. Starting and stopping: test_supervisor.py."""

from pathlib import Path

from quarterdeck.cli.managed_process import last_lines, open_private, rotate


def test_a_log_that_grew_too_large_is_begun_anew_under_its_writer(tmp_path: Path) -> None:
    log = tmp_path / "gateway.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"old\n" * 100)
        rotate(log, 100)
        writer.write(b"new\n")
    assert log.read_bytes() == b"new\n"
    assert (tmp_path / "gateway.log.1").read_bytes().startswith(b"old")


def test_the_last_lines_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert last_lines(log, 2) == "(no log)"
    log.write_text("a\nb\nc\n", encoding="utf-8")
    assert last_lines(log, 2) == "b\nc"


def test_a_log_can_be_read_by_its_user_only(tmp_path: Path) -> None:
    with open_private(tmp_path / "x.log", "ab") as log:
        log.write(b"what a caller sent")
    assert (tmp_path / "x.log").stat().st_mode & 0o777 == 0o600
