"""Forms with files (multipart/form-data) as values. Pure.

What an endpoint is sent is encoded anew from what was understood, so that gateway and endpoint can't read a form in two
ways: another `model` hidden in odd framing would be billed at the wrong price.
"""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class FormPart:
    """A field, or a file."""

    name: str
    data: bytes
    filename: str | None = None
    """None: it is a field."""
    content_type: str = ""
    """Of a file. Empty: none was stated."""

    @property
    def text(self) -> str:
        """Of a field. Raises UnicodeDecodeError."""
        return self.data.decode()


def with_fields(parts: Sequence[FormPart], changed: dict[str, str]) -> list[FormPart]:
    """The parts with some fields set; the others stay, in their order."""
    kept = [replace(part, data=changed[part.name].encode()) if part.name in changed else part for part in parts]
    known = {part.name for part in parts}
    return [*(FormPart(name, value.encode()) for name, value in changed.items() if name not in known), *kept]


def encode_form(parts: Iterable[FormPart]) -> tuple[bytes, bytes]:
    """The content type, and the body."""
    boundary = secrets.token_hex(16).encode()  # random: no file contains it
    pieces: list[bytes] = []
    for part in parts:
        disposition = b'form-data; name="%b"' % _quoted(part.name)
        if part.filename is not None:
            disposition += b'; filename="%b"' % _quoted(part.filename)
        pieces.append(b"--%b\r\ncontent-disposition: %b\r\n" % (boundary, disposition))
        if part.content_type:
            pieces.append(b"content-type: %b\r\n" % part.content_type.encode("ascii", "replace"))
        pieces += (b"\r\n", part.data, b"\r\n")
    pieces.append(b"--%b--\r\n" % boundary)
    return b"multipart/form-data; boundary=" + boundary, b"".join(pieces)


def _quoted(name: str) -> bytes:
    """As browsers write names (WHATWG); and without backslashes, which some parsers take for an escape and browsers
    don't: `\\"` would end the name for one and not for the other."""
    encoded = name.encode("utf-8", "replace")
    for character, escape in ((b"\r", b"%0D"), (b"\n", b"%0A"), (b'"', b"%22"), (b"\\", b"%5C")):
        encoded = encoded.replace(character, escape)
    return encoded
