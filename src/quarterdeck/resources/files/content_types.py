"""What a file's content is, by its first bytes: a client's name and type of it are not believed. Pure."""

import mimetypes

SNIFFED_BYTES = 4096
BINARY = "application/octet-stream"
IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"%PDF-", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x1f\x8b", "application/gzip"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"\x1aE\xdf\xa3", "video/webm"),
    (b"PAR1", "application/vnd.apache.parquet"),
)
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}
_TEXTS = {
    ".jsonl": "application/jsonl",
    ".json": "application/json",
    ".md": "text/markdown",
    ".csv": "text/csv",
    ".html": "text/html",
    ".htm": "text/html",
    ".xml": "text/xml",
    ".svg": "image/svg+xml",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}
_ZIPPED = ("application/vnd.openxmlformats-officedocument.", "application/epub", "application/vnd.oasis.")


def content_type(head: bytes, filename: str, *, is_whole: bool) -> str:
    """The type of a file that begins with `head`. `is_whole`: that is all of it.

    A name decides only among types of the same form: which text it is, and which of the formats that are zip archives.
    """
    for signature, found in _SIGNATURES:
        if head.startswith(signature):
            named, _ = mimetypes.guess_type(filename)
            return named if found == "application/zip" and named and named.startswith(_ZIPPED) else found
    if head[:4] == b"RIFF" and (found := _RIFF.get(head[8:12], "")):
        return found
    if head[4:8] == b"ftyp":
        return "video/mp4"
    if not _is_text(head, is_whole=is_whole):
        return BINARY
    dot = filename.rfind(".")
    return _TEXTS.get(filename[dot:].lower(), "text/plain") if dot >= 0 else "text/plain"


def is_text(mime: str) -> bool:
    """Whether a model can read the content as it is."""
    return mime.startswith("text/") or mime in _TEXTS.values()


def _is_text(head: bytes, *, is_whole: bool) -> bool:
    if b"\x00" in head:
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        # A character may be cut in two at the end.
        return not is_whole and error.start >= len(head) - 3 and error.reason == "unexpected end of data"
    return True
