"""A command of the CLI on a terminal of a given width."""

import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping

_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def raw_on_terminal(words: str, environ: Mapping[str, str], columns: int) -> str:
    """All that the terminal receives, with its control sequences."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    given = {name: value for name, value in environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    with subprocess.Popen(
        [sys.executable, "-m", "quarterdeck.cli", *shlex.split(words)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**given, "TERM": "xterm-256color"},
    ):
        os.close(theirs)
        pieces = []
        while True:
            try:
                piece = os.read(ours, 65_536)
            except OSError:  # the last writer has closed it
                break
            if not piece:
                break
            pieces.append(piece)
    os.close(ours)
    return b"".join(pieces).decode().replace("\r\n", "\n")


def on_terminal(words: str, environ: Mapping[str, str], columns: int) -> list[str]:
    """Its lines, without colours."""
    return _SEQUENCE.sub("", raw_on_terminal(words, environ, columns)).rstrip("\n").split("\n")
