"""Event streams as other servers write them, line by line. Pure.

An event ends at its blank line, as the standard says. It also ends at the line that completes its JSON value, because
some servers leave out the blank lines, or the `data:`. Line ends are LF, CR or CRLF.
"""

from typing import Any

import msgspec

from quarterdeck.protocol.foreign import json_values
from quarterdeck.protocol.sse import MAX_EVENT_BYTES, EventTooLongError

BOM = b"\xef\xbb\xbf"
COMMENT = b":"
"""The name of an event that is a comment."""
_DONE = (b"[done]", b'"[done]"')


class Event(msgspec.Struct, frozen=True, gc=False):
    """`data` as it came, and its JSON value: `json_values.INVALID` where it has none. Of a comment `data` is the whole
    line."""

    name: bytes
    data: bytes
    value: Any = json_values.INVALID

    @property
    def is_done(self) -> bool:
        """Whether it is `[DONE]`, in any spelling."""
        return len(self.data) < 20 and self.data.strip().lower() in _DONE


class EventReader:
    """Turns pieces of a stream, as received, into events."""

    __slots__ = ("_data", "_has_begun", "_is_after_cr", "_name", "_rest", "_size")

    def __init__(self) -> None:
        self._rest = b""
        self._name = b""
        self._data: list[bytes] = []
        self._size = 0
        self._is_after_cr = self._has_begun = False

    def feed(self, piece: bytes) -> list[Event]:
        """The events that this piece completes. Raises EventTooLongError."""
        if not piece:
            return []
        if self._is_after_cr and piece.startswith(b"\n"):
            piece = piece[1:]
            self._is_after_cr = False
        if b"\r" in piece:  # JSON has no raw carriage returns, so these are line ends
            self._is_after_cr = piece.endswith(b"\r")
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        elif piece:
            self._is_after_cr = False
        lines = (self._rest + piece).split(b"\n")
        self._rest = lines.pop()
        found: list[Event] = []
        for line in lines:
            self._read_line(line, found)
        if len(self._rest) + self._size > MAX_EVENT_BYTES:
            raise EventTooLongError(f"an event of more than {MAX_EVENT_BYTES} bytes")
        return found

    def finish(self) -> list[Event]:
        """The last events, at the end of the body. One that is cut off is dropped."""
        found: list[Event] = []
        rest, self._rest = self._rest, b""
        if rest:
            self._read_line(rest, found)
        self._end_event(found)
        return [each for each in found if each.value is not json_values.INVALID or each.is_done]

    def _read_line(self, line: bytes, found: list[Event]) -> None:
        if not self._has_begun:
            self._has_begun = True
            line = line.removeprefix(BOM)
        if line.startswith(b"data: "):
            value = line[6:]
        elif not line or line.isspace():
            self._end_event(found)
            return
        elif line.startswith(b":"):
            found.append(Event(COMMENT, line))
            return
        elif line.startswith((b"{", b"[")) or (self._data and not line.startswith((b"data:", b"event:"))):
            value = line  # JSON without a field's name, or its next line
        else:
            name, _, value = line.partition(b":")
            name, value = name.strip().lower(), value.removeprefix(b" ")
            if name == b"event":
                self._name = value.strip()
                return
            if name == b"error":
                self._name = name
            elif name != b"data":
                return
        while value.startswith(b"data: "):  # some proxies write it twice
            value = value[6:]
        if not self._data and self._is_complete(value, found):
            return
        self._data.append(value)
        self._size += len(value)

    def _is_complete(self, line: bytes, found: list[Event]) -> bool:
        """Add the event of a line that is one by itself."""
        text = line.strip()
        if text.startswith((b"{", b"[")) and text.endswith((b"}", b"]")):
            value = json_values.decode(text)
            event = Event(self._name, text, value)
            if value is not json_values.INVALID or event.is_done:
                found.append(event)
                return True
        return False

    def _end_event(self, found: list[Event]) -> None:
        name, lines = self._name, self._data
        self._name, self._data, self._size = b"", [], 0
        text = b"\n".join(lines).strip()
        if not text:
            return
        value = json_values.decode(text)
        if value is json_values.INVALID and len(lines) > 1:
            found += [Event(name, line.strip(), json_values.decode(line)) for line in lines if line.strip()]
        else:
            found.append(Event(name, text, value))
