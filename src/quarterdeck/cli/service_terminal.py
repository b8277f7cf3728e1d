"""`up` as a systemd service: it says when it is ready and what it does, in systemd's own protocol (sd_notify(3))."""

import os
import socket
import sys
from collections.abc import Mapping
from typing import TextIO

from quarterdeck.cli.terminal import Terminal


def is_journal(variables: Mapping[str, str], out: TextIO = sys.stdout) -> bool:
    """Whether systemd keeps what this process prints: no secret may be printed then.

    JOURNAL_STREAM is inherited by terminals as well; its value is that of the stream which is the journal's.
    """
    try:
        status = os.fstat(out.fileno())
    except (OSError, ValueError):
        return False
    return variables.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class ServiceTerminal(Terminal):
    """Prints as `Terminal` does, for the journal, and tells systemd the state."""

    def __init__(self, address: str, out: TextIO = sys.stdout) -> None:
        super().__init__(out)
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def step(self, part: str, text: str) -> None:
        super().step(part, text)
        self._notify(f"STATUS={part}: {(text.splitlines() or [''])[0]}")

    def started(self) -> None:
        self._notify("READY=1")

    def stopping(self) -> None:
        self._notify("STOPPING=1")

    def _notify(self, text: str) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
                notify.settimeout(1.0)  # systemd reads at once; one that does not must not stop the platform
                notify.connect(self._address)
                notify.send(text.encode())
        except OSError as error:
            # Without READY systemd ends the start after its time-out, and the journal shows why.
            print(f"sd_notify: {error}", file=sys.stderr)


def terminal_for(variables: Mapping[str, str]) -> Terminal:
    """The terminal of a service (NOTIFY_SOCKET is set), or an ordinary one."""
    address = variables.get("NOTIFY_SOCKET", "")
    return ServiceTerminal(address) if address.startswith(("/", "@")) else Terminal()
