"""A small parent for the door, so that nothing outlives it, however it ends.

The door holds Ray's client, which is C++ with signal handlers of its own: it may crash, be killed for memory, or
be ended by a SIGTERM in the moment in which Ray has taken that over. Its descendants (gigabytes) then fall to
this process, which has imported nothing and does nothing but wait, and it ends them.
"""

import logging
import os
import signal
from collections.abc import Callable
from types import FrameType

from quarterdeck import processes
from quarterdeck.engine import shared_memory

log = logging.getLogger(__name__)


def watch_over(run: Callable[[], int], *, end_seconds: float, stop_seconds: float) -> int:
    """Run `run` in a child, hand on SIGTERM and SIGINT, wait, end all that is left. Returns the status to exit with.

    After a signal the child has `end_seconds` to end by itself; what is left then has `stop_seconds`.
    Forks: call it before threads, loops and heavy imports. If we are killed ourselves, the child gets SIGTERM from the
    kernel and ends its tree alone.
    """
    processes.become_subreaper()
    processes.die_with_parent()
    warden = os.getpid()
    # Blocked until both have their handlers: a signal in between would be lost on one of them.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    door = os.fork()
    if door == 0:
        processes.become_subreaper()
        processes.die_with_parent()
        if os.getppid() != warden:
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
        os._exit(run())

    def hand_on(sig: int, frame: FrameType | None) -> None:
        os.kill(door, signal.SIGTERM)
        signal.setitimer(signal.ITIMER_REAL, end_seconds)

    def end(sig: int, frame: FrameType | None) -> None:
        log.error("the engine door has not ended within %.0f s", end_seconds)
        os.kill(door, signal.SIGKILL)

    signal.signal(signal.SIGALRM, end)
    signal.signal(signal.SIGTERM, hand_on)
    signal.signal(signal.SIGINT, hand_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    _, status = os.waitpid(door, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        log.error("the engine door was ended by %s", signal.Signals(-code).name)
    segments = shared_memory.segments(processes.descendants(warden))
    signal.setitimer(signal.ITIMER_REAL, 0)
    left = processes.end_tree(warden, grace_s=stop_seconds)
    shared_memory.remove(segments)
    if left:
        log.error("left behind: %s", ", ".join(f"{process.name} ({process.pid})" for process in left))
    return code if code >= 0 and not left else 1
