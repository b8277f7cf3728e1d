"""A small parent process of the door, which ends every process that outlives it.

The door holds Ray's client, C++ code with its own signal handlers: it may crash, be killed for memory, or be ended by a
SIGTERM while Ray's handler is installed. Its descendants (gigabytes) are then reparented to this process, which imports
nothing heavy, only waits, and ends them.
"""

import logging
import os
import signal
from collections.abc import Callable
from types import FrameType

from quarterdeck import processes
from quarterdeck.engine import shared_memory

log = logging.getLogger(__name__)


def run_guarded(run: Callable[[], int], *, end_seconds: float, stop_seconds: float) -> int:
    """Run `run` in a child, forward SIGTERM and SIGINT, wait, end its remaining processes. Returns the exit status.

    After a signal the child has `end_seconds` to end; remaining processes then have `stop_seconds`.
    It forks: call it before threads, loops and heavy imports. If this process is killed, the kernel sends SIGTERM to
    the child, which ends its tree itself.
    """
    processes.become_subreaper()
    processes.die_with_parent()
    guard = os.getpid()
    # Blocked until both processes have handlers: a signal before that would be lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    door = os.fork()
    if door == 0:
        processes.become_subreaper()
        processes.die_with_parent()
        if os.getppid() != guard:
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
        os._exit(run())

    def forward(sig: int, frame: FrameType | None) -> None:
        os.kill(door, signal.SIGTERM)
        signal.setitimer(signal.ITIMER_REAL, end_seconds)

    def kill(sig: int, frame: FrameType | None) -> None:
        log.error("engine door did not stop within %.0f s; killing it", end_seconds)
        os.kill(door, signal.SIGKILL)

    signal.signal(signal.SIGALRM, kill)
    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    _, status = os.waitpid(door, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        log.error("engine door was killed by %s", signal.Signals(-code).name)
    segments = shared_memory.segments(processes.descendants(guard))
    signal.setitimer(signal.ITIMER_REAL, 0)
    remaining = processes.end_tree(guard, grace_s=stop_seconds)
    shared_memory.remove(segments)
    if remaining:
        names = ", ".join(f"{process.name} ({process.pid})" for process in remaining)
        log.error("processes could not be ended: %s", names)
    return code if code >= 0 and not remaining else 1
