"""The `preStop` hook of a Ray cluster's pods: waits until their requests have finished.

    python -m quarterdeck.engine.kuberay.drain head|worker SECONDS

head     asks the door, which reports all endpoints as draining from then on
worker   has Ray move the replicas of this node elsewhere, then asks the replicas' own ports

Kubernetes sends SIGTERM when the hook ends, at the latest after the pod's grace period. Standard library only: it must
start at once, on a machine that may be busy.
"""

import contextlib
import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path

from quarterdeck.kube.replica_addresses import REPLICA_PORTS

MIN_SECONDS = 6.0
"""Until every gateway has seen that the endpoints drain: they poll each second, and a busy one may be late."""
DOOR = "http://127.0.0.1:8011/drain"

_ACTIVE = re.compile(r"^vllm:num_requests_(?:running|waiting)\{[^}]*\} (\S+)$", re.MULTILINE)
_LISTEN = "0A"
_POLL_S = 0.5
_TIMEOUT_S = 2.0
_RAY_S = 10.0


def wait_until_idle(
    active: Callable[[], int],
    seconds: float,
    *,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Return once `active` was 0 twice in a row and MIN_SECONDS have passed; False after `seconds`."""
    began = now()
    idle = 0
    while now() < began + seconds:
        idle = idle + 1 if active() == 0 else 0
        if idle >= 2 and now() >= began + MIN_SECONDS:
            return True
        sleep(_POLL_S)
    return False


class ActiveInCluster:
    """The door's count. Before its first answer the door may be restarting, so 1; after it, a door that has ended had
    found the cluster idle in its own hook, so 0."""

    def __init__(self, url: str = DOOR) -> None:
        self._url = url
        self._answered = False

    def __call__(self) -> int:
        request = urllib.request.Request(self._url, data=b"", method="POST")  # noqa: S310  # loopback
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S * 2) as response:  # noqa: S310
                active = int(json.load(response)["active"])
        except urllib.error.URLError as error:
            return 0 if self._answered and isinstance(error.reason, ConnectionRefusedError) else 1
        except (OSError, ValueError, KeyError):
            return 1
        self._answered = True
        return active


def active_here(ports: Iterable[int]) -> int:
    """The count of the replicas in this pod."""
    total = 0.0
    for port in ports:
        url = f"http://127.0.0.1:{port}/metrics"
        with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:
            total += sum(float(value) for value in _ACTIVE.findall(response.read().decode(errors="replace")))
    return int(total)


def listening(table: str) -> list[int]:
    """Ports of replicas in `/proc/net/tcp`, which listen."""
    rows = (line.split() for line in table.splitlines()[1:])
    ports = {int(row[1].rpartition(":")[2], 16) for row in rows if len(row) > 3 and row[3] == _LISTEN}
    return sorted(port for port in ports if port in REPLICA_PORTS)


def leave_cluster(seconds: float) -> None:
    """Tell Ray that this node ends, so that Serve starts the replicas elsewhere and stops these when they are idle."""
    command = ["ray", "drain-node", "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "the pod ends"]
    command += ["--deadline-remaining-seconds", str(int(seconds))]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(command, capture_output=True, timeout=_RAY_S, check=False)  # noqa: S603


def main(arguments: list[str]) -> int:
    role, seconds = arguments[0], float(arguments[1])
    if role == "head":
        return 0 if wait_until_idle(ActiveInCluster(), seconds) else 1
    began = time.monotonic()
    leave_cluster(seconds)

    def active() -> int:
        table = "\n".join(Path(f"/proc/net/{name}").read_text(encoding="ascii") for name in ("tcp", "tcp6"))
        return active_here(listening(table))

    return 0 if wait_until_idle(active, seconds - (time.monotonic() - began)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
