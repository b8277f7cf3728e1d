"""Samples the platform's processes on this machine (/proc) and the gateway's metrics (`/metrics`) during a run.

Both are optional: values that can't be read are left out.
"""

import http.client
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from quarterdeck import processes

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_DOOR = re.compile(rb"-m\0quarterdeck\.(\w+)")
_SERIES = re.compile(r"^(quarterdeck_[a-z_]+(?:\{[^}]*\})?) (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ProcessSample:
    """A process at one time, in Unix seconds."""

    time: float
    name: str
    pid: int
    rss_bytes: int
    cpu_seconds: float
    threads: int


def platform_pids(state: Path, proc: Path = Path("/proc")) -> dict[int, str]:
    """pid → name of the processes that `quarterdeck up` runs on this state folder, with their descendants."""
    try:
        parent = int((state / "up.lock").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    table = processes.process_table(proc)
    found: dict[int, str] = {}
    for process in processes.under([parent], table):
        door = found.get(process.parent, "").partition("/")[0]
        name = _door(proc, process.pid) or (process.name if "redis" not in process.name else "redis")
        found[process.pid] = name if process.parent == parent or not door else f"{door}/{process.name}"
    return found


def has_real_engine(state: Path, proc: Path = Path("/proc")) -> bool:
    """Whether `quarterdeck up` runs a real engine on this state folder, not the simulated one."""
    doors = [pid for pid, name in platform_pids(state, proc).items() if name == "engine"]
    return bool(doors) and not any(b"simulator" in _command(proc, pid) for pid in doors)


def _command(proc: Path, pid: int) -> bytes:
    try:
        return (proc / str(pid) / "cmdline").read_bytes()
    except OSError:
        return b""


def _door(proc: Path, pid: int) -> str | None:
    found = _DOOR.search(_command(proc, pid))
    return found[1].decode() if found else None


def sample(time: float, pids: Mapping[int, str], proc: Path = Path("/proc")) -> list[ProcessSample]:
    """Sample the processes that are alive."""
    found = []
    for pid, name in pids.items():
        try:
            text = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        fields = text.rpartition(")")[2].split()
        if fields[0] in "ZX":
            continue
        cpu = (int(fields[11]) + int(fields[12])) / _TICKS
        found.append(ProcessSample(time, name, pid, int(fields[21]) * _PAGE, cpu, int(fields[17])))
    return found


def scrape(root: str, timeout: float = 1.0) -> dict[str, float]:
    """The gateway's counters and gauges by series, without buckets. Empty: none, or no response."""
    parts = urlsplit(root)
    make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = make(parts.hostname or "", parts.port, timeout=timeout)
        try:
            connection.request("GET", f"{parts.path.rstrip('/')}/metrics")
            response = connection.getresponse()
            text = response.read().decode("utf-8", "replace") if response.status == 200 else ""
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        return {}
    found = {}
    for series, value in _SERIES.findall(text):
        if "_bucket{" not in series:
            try:
                found[series] = float(value)
            except ValueError:
                continue
    return found


def own_pids() -> dict[int, str]:
    """The load test's own processes, to show how much of the machine it takes."""
    workers = {process.pid: "load/worker" for process in processes.descendants(os.getpid())}
    return {os.getpid(): "load", **workers}
