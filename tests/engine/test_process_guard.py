"""No process outlives the door, however it ends. Each test runs the guard as a process."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from quarterdeck.processes import is_alive

# A door with a child that ignores SIGTERM; it prints both pids, then acts as its argument says.
DOOR = """
import os, signal, subprocess, sys, time
from quarterdeck.engine.process_guard import run_guarded

def run():
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    child.stdout.readline()
    ended = []
    if sys.argv[1] != "hang":
        signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
    else:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(os.getpid(), child.pid, flush=True)
    if sys.argv[1] == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    while not ended:
        time.sleep(0.01)
    return 0

sys.exit(run_guarded(run, end_seconds=0.3, stop_seconds=0.1))
"""


@contextmanager
def guarded_door(what: str) -> Iterator[tuple["subprocess.Popen[str]", int, int]]:
    with subprocess.Popen([sys.executable, "-c", DOOR, what], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        door, child = map(int, process.stdout.readline().split())
        try:
            yield process, door, child
        finally:
            process.kill()


def test_sigterm_reaches_the_door_and_its_children_end() -> None:
    with guarded_door("wait") as (process, door, child):
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        assert not is_alive(door)
        assert not is_alive(child)


def test_a_door_that_crashes_leaves_no_process() -> None:
    with guarded_door("crash") as (process, _, child):
        assert process.wait(timeout=30) == 1
        assert not is_alive(child)


def test_a_door_that_does_not_end_is_ended() -> None:
    with guarded_door("hang") as (process, door, child):
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 1
        assert not is_alive(door)
        assert not is_alive(child)


def test_a_door_whose_guard_is_killed_gets_sigterm() -> None:
    with guarded_door("wait") as (process, door, child):
        ended = os.pidfd_open(door)
        process.kill()
        assert select.select([ended], [], [], 30)[0]
        os.close(ended)
        os.kill(child, signal.SIGKILL)
