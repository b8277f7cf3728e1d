"""Process trees are listed and ended completely."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from quarterdeck.processes import Process, descendants, end_tree, is_alive, parse_stat, under

# A parent with a child that ignores SIGTERM and prints its pid when it is ready.
STUBBORN = """
import os, signal, sys, time
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(os.getpid(), flush=True)
    time.sleep(600)
time.sleep(600)
"""

# A supervisor whose child dies and leaves a grandchild, which must become the supervisor's child.
ORPHAN = """
import os, subprocess, sys, time
from quarterdeck.processes import become_subreaper, descendants, end_tree
become_subreaper()
middle = "import subprocess, sys; print(subprocess.Popen(['sleep', '600'], stdout=subprocess.DEVNULL).pid, flush=True)"
pid = int(subprocess.run([sys.executable, '-c', middle], stdout=subprocess.PIPE, check=True).stdout)
assert [p.pid for p in descendants(os.getpid())] == [pid], descendants(os.getpid())
assert end_tree(os.getpid(), grace_s=5) == []
print(pid)
"""

CHILD = """
import os, subprocess, sys, time
code = "import time; from quarterdeck.processes import die_with_parent; die_with_parent()"
code += "; print('ready', flush=True); time.sleep(600)"
child = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""


@contextmanager
def python(code: str) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _process(pid: int, parent: int, state: str = "S") -> Process:
    return Process(pid=pid, parent=parent, state=state, started=pid, name=f"p{pid}")


def test_a_name_with_parentheses_is_read() -> None:
    stat = "42 (ray::Foo (bar) x) S 7 42 42 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 12345 0 0"
    assert parse_stat(stat) == Process(pid=42, parent=7, state="S", started=12345, name="ray::Foo (bar) x")


def test_the_tree_is_found_parents_first_and_without_the_dead() -> None:
    table = {p.pid: p for p in [_process(1, 0), _process(2, 1), _process(3, 2), _process(4, 2, "Z"), _process(5, 9)]}
    assert [p.pid for p in under([1], table)] == [2, 3]


def test_a_zombie_is_not_alive() -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(process.pid)
    process.wait()


def test_a_tree_ends_though_a_member_ignores_sigterm() -> None:
    with python(STUBBORN) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert [p.pid for p in descendants(parent.pid)] == [child]
        assert end_tree(parent.pid, grace_s=0.2) == []
        assert not is_alive(child)
        assert not is_alive(parent.pid)


def test_an_orphan_belongs_to_the_subreaper() -> None:
    with python(ORPHAN) as supervisor:
        out, _ = supervisor.communicate(timeout=30)
    assert supervisor.returncode == 0
    assert not is_alive(int(out))


def test_a_child_dies_with_its_parent() -> None:
    with python(CHILD) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        waiting = os.pidfd_open(child)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        # A pidfd becomes readable when its process ends.
        ended, _, _ = select.select([waiting], [], [], 30)
        os.close(waiting)
        assert ended
