"""Waits until the head of the Ray cluster accepts connections: a worker's first command.

    python -m quarterdeck.engine.kuberay.wait

KubeRay runs it before `ray start` and sets the head's address. Its own init container does the same in steps of five
seconds; where that is switched off (ENABLE_INIT_CONTAINER_INJECTION=false), this is all that waits. Standard library
only.
"""

import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping

HEAD_SECONDS = 600.0
"""A head's image may be pulled meanwhile. Then the worker is restarted, and waits again."""
_POLL_S = 0.5
_TIMEOUT_S = 2.0


def is_listening(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=_TIMEOUT_S):
        return True
    return False


def wait(
    host: str,
    port: int,
    seconds: float,
    *,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    is_up: Callable[[str, int], bool] = is_listening,
) -> bool:
    """Return whether the head was up within `seconds`."""
    end = now() + seconds
    while not is_up(host, port):
        if now() >= end:
            return False
        sleep(_POLL_S)
    return True


def main(environ: Mapping[str, str]) -> int:
    host, port = environ.get("FQ_RAY_IP", ""), environ.get("RAY_PORT") or "6379"
    if not host or not port.isdigit():
        print("FQ_RAY_IP and RAY_PORT are not set: this is not a worker that KubeRay started", file=sys.stderr)
        return 2
    if wait(host, int(port), HEAD_SECONDS):
        return 0
    print(f"the head {host}:{port} did not come up in {HEAD_SECONDS:.0f} s", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(os.environ))
