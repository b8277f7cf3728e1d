"""The readiness probe of a worker pod: succeeds when the pod's replica answers its health check.

    python -m quarterdeck.engine.kuberay.ready

Standard library only: it runs every few seconds.
"""

import sys
import urllib.request
from pathlib import Path

from quarterdeck.engine.kuberay.drain import listening

_TIMEOUT_S = 5.0


def is_ready(tables: str) -> bool:
    """`tables`: of the listening sockets, as in `/proc/net/tcp`."""
    for port in listening(tables):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=_TIMEOUT_S) as response:
                if response.status == 200:
                    return True
        except OSError:
            continue  # it starts, ends, or is not healthy
    return False


def main() -> int:
    tables = "\n".join(Path(f"/proc/net/{name}").read_text(encoding="ascii") for name in ("tcp", "tcp6"))
    return 0 if is_ready(tables) else 1


if __name__ == "__main__":
    sys.exit(main())
