"""Names of files, which clients choose. Pure."""

import re
from urllib.parse import quote

MAX_FILENAME = 255
_SEPARATORS = re.compile(r"[/\\]")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line ends, and what turns the direction of a text, so that `gpj.exe` looks like `exe.jpg`."""
_NOT_QUOTABLE = re.compile(r'[^\x20-\x7e]|["\\%]')


def clean_filename(text: str) -> str:
    """The last component of a name, without characters that mean something else in a header or a terminal.

    A long one keeps its extension. `upload` for one that has nothing left.
    """
    name = _UNPRINTABLE.sub("_", _SEPARATORS.split(text)[-1]).strip()
    if name in ("", ".", ".."):
        return "upload"
    if len(name) > MAX_FILENAME:
        stem, dot, extension = name.rpartition(".")
        if dot and len(extension) <= 16:
            return stem[: MAX_FILENAME - len(extension) - 1] + "." + extension
        return name[:MAX_FILENAME]
    return name


def content_disposition(filename: str) -> bytes:
    """Of a download (RFC 6266): always an attachment, so that no browser shows an HTML file as a page of ours."""
    ascii_name = _NOT_QUOTABLE.sub("_", filename)
    return f"attachment; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(filename, safe='')}".encode("ascii")
