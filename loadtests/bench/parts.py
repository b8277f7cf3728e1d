"""Child processes of a benchmark: pinning, waiting, stopping, CPU and memory."""

import contextlib
import os
import platform
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from quarterdeck.processes import die_with_parent

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def process(
    argv: Sequence[str | Path], *, core: int | None, log: Path, environ: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a child on one core with its output in `log`; stop its whole group at the end. All share one session, as in
    a container: Linux divides a core between sessions first, so the worker could not yield to Redis otherwise."""
    pin = [] if core is None else ["taskset", "-c", str(core)]
    with log.open("ab") as out:
        child = subprocess.Popen(
            [*pin, *map(str, argv)],
            stdout=out,
            stderr=out,
            env={**os.environ, **(environ or {})},
            process_group=0,
            preexec_fn=die_with_parent,  # a killed benchmark leaves no processes
        )
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def wait_for(url: str, child: subprocess.Popen[bytes], log: Path, *, seconds: float = 120) -> None:
    """Wait until the URL answers below 500. Raises with the end of the log if the child exits first."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except urllib.error.HTTPError as error:
            if error.code < 500:
                return
        except OSError:
            pass  # not listening yet
        if child.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{url} did not come up:\n{log.read_text()[-2000:]}")
        time.sleep(0.2)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its running children."""
    total = 0.0
    for each in [pid, *children(pid)]:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / CLOCK_TICKS
    return total


def children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *children(int(child))]
    return found


def rss_mb(pid: int) -> float:
    """Resident memory of a process in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def idle_share(core: int, before: Sequence[int] | None = None) -> tuple[list[int], float]:
    """The core's current counters, and the share of idle time since `before` (0 to 1)."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            now = [int(field) for field in line.split()[1:]]
            if before is None:
                return now, 0.0
            spent = [b - a for a, b in zip(before, now, strict=True)]
            return now, (spent[3] + spent[4]) / max(1, sum(spent))
    raise RuntimeError(f"no core {core}")


def machine() -> str:
    """The machine in one line."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")), "?")
    vectors = "AVX-512 bf16" if "avx512_bf16" in info else "no AVX-512 bf16"
    return f"{model}, {os.cpu_count()} cores, {vectors}, CPython {platform.python_version()}"
