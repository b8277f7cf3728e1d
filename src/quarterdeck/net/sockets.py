"""Sockets: listening ones, and closing one without a reset."""

import asyncio
import errno
import fcntl
import os
import socket
import struct
import termios
from dataclasses import dataclass

BACKLOG = 2048
"""Connections that the kernel keeps until they are accepted; it caps this at net.core.somaxconn."""


def listen(host: str, port: int) -> socket.socket:
    """Bind and listen. Raises OSError: bound here and not inside a server library, which would exit the process.

    With port 0 the system chooses one. `::` takes IPv4 as well, where the system has both.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    is_dual = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=is_dual)


@dataclass(frozen=True, slots=True)
class ListenProblem:
    """Why a process cannot listen."""

    text: str
    is_port: bool
    """Another port may do; else it is the address that is wrong."""


def listen_problem(host: str, port: int) -> ListenProblem | None:
    """Whether `listen` would fail now."""
    try:
        listen(host, port).close()
    except OSError as error:
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        # create_server appends the address to the system's text.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            return ListenProblem(f"{address} is already in use", True)
        return ListenProblem(f"cannot listen on {address}: {reason}", error.errno == errno.EACCES)
    return None


def has_unread(transport: asyncio.BaseTransport) -> bool:
    """Whether the peer has sent bytes that were not read from the socket yet."""
    descriptor = _descriptor(transport)
    if descriptor is None:
        return False
    waiting: int = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))[0]
    return waiting > 0


def discard_unread(transport: asyncio.BaseTransport) -> None:
    """Read what the peer has sent, and drop it. The kernel answers a close over unread bytes with a reset, and a peer
    that is reset may lose what was sent to it before. At most 1 MiB: a peer that writes for ever is reset."""
    descriptor = _descriptor(transport)
    if descriptor is None:
        return
    try:
        for _ in range(16):
            if not os.read(descriptor, 64 * 1024):
                return
    except OSError:
        return  # nothing more to read, or the peer has closed


def _descriptor(transport: asyncio.BaseTransport) -> int | None:
    """None: the transport is closed, or has no socket."""
    sock = transport.get_extra_info("socket")
    number: int = -1 if sock is None else sock.fileno()
    return number if number >= 0 else None


def free_port(host: str = "127.0.0.1") -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def http_url(host: str, port: int) -> str:
    """The URL of a port; an IPv6 address stands in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
