"""Listening sockets."""

import socket

BACKLOG = 2048
"""Connections that the kernel keeps until they are accepted; it caps this at net.core.somaxconn."""


def listen(host: str, port: int) -> socket.socket:
    """Bind and listen. Raises OSError: bound here and not inside a server library, which would exit the process.

    With port 0 the system chooses one.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)
