"""Whether the ports of the platform are free, and which process holds one that is not."""

import os
from collections.abc import Mapping
from pathlib import Path

from quarterdeck.net.sockets import listen_problem

_LISTEN = "0A"
"""The state LISTEN in /proc/net/tcp."""


def problems(wanted: Mapping[str, tuple[str, int]]) -> list[str]:
    """A line for each address that can't be used. `wanted`: host and port by environment variable."""
    found: list[str] = []
    taken: dict[int, str] = {}
    for variable, (host, port) in wanted.items():
        if port in taken:
            found.append(f"{taken[port]} and {variable} are both {port}: set one of them to another port")
            continue
        taken[port] = variable
        if problem := listen_problem(host, port):
            by = f" by {holder}" if problem.is_port and (holder := holder_of(port)) else ""
            hint = " (or --port)" if variable == "QUARTERDECK_PORT" else ""
            change = (
                f"set {variable}{hint}" if problem.is_port else "set QUARTERDECK_HOST to an address of this machine"
            )
            found.append(f"{problem.text}{by}: {change}")
    return found


def holder_of(port: int, proc: Path = Path("/proc")) -> str | None:
    """The process that listens on the port, such as "python (pid 7)". None: it can't be found out, as for another
    user's."""
    inodes = {inode for table in ("tcp", "tcp6") for inode in _listening(proc / "net" / table, port)}
    if not inodes:
        return None
    links = {f"socket:[{inode}]" for inode in inodes}
    for process in proc.iterdir():
        if process.name.isdecimal() and _has_one(process / "fd", links):
            return f"{_name(process)} (pid {process.name})"
    return None


def _listening(table: Path, port: int) -> list[str]:
    """The inodes of sockets that listen on the port."""
    try:
        rows = [line.split() for line in table.read_text(encoding="ascii").splitlines()[1:]]
    except OSError:
        return []
    return [row[9] for row in rows if row[3] == _LISTEN and int(row[1].rpartition(":")[2], 16) == port]


def _has_one(descriptors: Path, links: set[str]) -> bool:
    try:
        return any(os.readlink(each) in links for each in descriptors.iterdir())
    except OSError:  # it has ended, or is another user's
        return False


def _name(process: Path) -> str:
    """Its program, and for Python its module or script."""
    try:
        words = (process / "cmdline").read_bytes().decode("utf-8", errors="replace").split("\0")
    except OSError:
        return "a process"
    program = Path(words[0]).name or "a process"
    if program.startswith("python"):
        named = [word for word in words[1:] if word and word not in ("-m", "-u", "-c")]
        return named[0] if named else program
    return program
