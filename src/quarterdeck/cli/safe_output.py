"""Standard output and error of the commands, on which no text can command the terminal.

Names, messages and answers come from gateways, models and callers. Commands make them printable where they print
them (`output.printable`); what a command forgets is escaped here, but for the colours and the erased lines of the CLI
itself. Other sequences rename windows, fill the clipboard or rewrite what was on the screen.
"""

import io
import re
import sys

_HARMFUL = re.compile(r"\x1b(?!\[[0-9;]*[mK])|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]")
"""Control characters but for tab, new line and carriage return; ESC unless it begins a colour or erases a line."""


def safe(text: str) -> str:
    """`text` with escapes such as `\\x1b` for what a terminal could obey."""
    return _HARMFUL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


class SafeOutput(io.TextIOWrapper):
    """A text stream that writes `safe` text."""

    def write(self, text: str, /) -> int:
        super().write(safe(text))
        return len(text)


def install() -> None:
    """Replace sys.stdout and sys.stderr. A locale without UTF-8 writes escapes for what it does not have."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):
            continue  # closed, or another program's
        stream.flush()
        errors = stream.errors if stream.encoding.lower() == "utf-8" else "backslashreplace"
        made = SafeOutput(
            stream.buffer,
            stream.encoding,
            errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, made)
