"""Whether the ports of the platform are free, and which process holds one that is not."""

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from quarterdeck.net.sockets import ListenProblem, listen_problem

_LISTEN = "0A"
"""The state LISTEN in /proc/net/tcp."""
PROC = Path("/proc")
EXIT_SECONDS = 15.0
"""A process that ends gives its memory back before its sockets, which takes seconds on a busy machine."""
POLL_SECONDS = 0.05


def problems(
    wanted: Mapping[str, tuple[str, int]], *, proc: Path = PROC, pause: Callable[[float], None] = time.sleep
) -> list[str]:
    """A line for each address that can't be used. `wanted`: host and port by environment variable."""
    found: list[str] = []
    taken: dict[int, str] = {}
    for variable, (host, port) in wanted.items():
        if port in taken:
            found.append(f"{taken[port]} and {variable} are both {port}: set one of them to another port")
            continue
        taken[port] = variable
        if problem := _problem(host, port, proc, pause):
            by = f" by {holder}" if problem.is_port and (holder := holder_of(port, proc)) else ""
            hint = " (or --port)" if variable == "QUARTERDECK_PORT" else ""
            change = (
                f"set {variable}{hint}" if problem.is_port else "set QUARTERDECK_HOST to an address of this machine"
            )
            found.append(f"{problem.text}{by}: {change}")
    return found


def holder_of(port: int, proc: Path = PROC) -> str | None:
    """The process that listens on the port, such as "python (pid 7)". None: it can't be found out, as for another
    user's."""
    found = _holder(port, proc)
    return None if found is None else f"{_name(found)} (pid {found.name})"


def _problem(host: str, port: int, proc: Path, pause: Callable[[float], None]) -> ListenProblem | None:
    """That of `listen_problem`, once a process that is just ending has closed its sockets."""
    for _ in range(int(EXIT_SECONDS / POLL_SECONDS)):
        problem = listen_problem(host, port)
        if problem is None or not problem.is_port or not _is_ending(port, proc):
            break
        pause(POLL_SECONDS)
    return problem


def _is_ending(port: int, proc: Path) -> bool:
    """Whether a process of this user that listens on the port is just ending, as those of a killed run. It has given
    back its memory, and so has no command line; then its main thread, and with it the descriptors in /proc, while other
    threads still have the sockets."""
    if not any(uid == str(os.geteuid()) for _, uid in _listening(port, proc)):
        return False
    found = _holder(port, proc)
    return found is None or not _words(found)


def _holder(port: int, proc: Path) -> Path | None:
    """The folder in /proc of the process that listens on the port."""
    links = {f"socket:[{inode}]" for inode, _ in _listening(port, proc)}
    if not links:
        return None
    found = (each for each in proc.iterdir() if each.name.isdecimal() and _has_one(each / "fd", links))
    return next(found, None)


def _listening(port: int, proc: Path) -> list[tuple[str, str]]:
    """The inodes and users of sockets that listen on the port."""
    rows: list[list[str]] = []
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):  # no /proc, or no IPv6
            rows += [line.split() for line in (proc / "net" / table).read_text(encoding="ascii").splitlines()[1:]]
    return [(row[9], row[7]) for row in rows if row[3] == _LISTEN and int(row[1].rpartition(":")[2], 16) == port]


def _has_one(descriptors: Path, links: set[str]) -> bool:
    try:
        return any(os.readlink(each) in links for each in descriptors.iterdir())
    except OSError:  # it has ended, or is another user's
        return False


def _name(process: Path) -> str:
    """Its program, and for Python its module or script."""
    words = _words(process)
    if not words:
        return "a process"
    program = Path(words[0]).name
    if program.startswith("python"):
        named = [word for word in words[1:] if word not in ("-m", "-u", "-c")]
        return named[0] if named else program
    return program


def _words(process: Path) -> list[str]:
    """Its command line. Empty: it is ending."""
    try:
        text = (process / "cmdline").read_bytes().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [word for word in text.split("\0") if word]
