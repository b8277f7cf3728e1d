"""Compressed request bodies, decoded within the bound of plain ones."""

import asyncio
import zlib

from quarterdeck.errors import BadRequestError, UnsupportedMediaTypeError
from quarterdeck.net.asgi import too_large

ACCEPTED = "gzip, deflate"
MAX_MEMBERS = 16
"""Parts of a gzip body, each of which is a gzip file."""

_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_WINDOWS = {b"gzip": _GZIP, b"x-gzip": _GZIP, b"deflate": _ZLIB}


def is_plain(content_encoding: bytes) -> bool:
    return content_encoding.strip().lower() in (b"", b"identity")


def check(content_encoding: bytes) -> None:
    """Raises UnsupportedMediaTypeError for a coding that is not decoded here."""
    if not is_plain(content_encoding) and content_encoding.strip().lower() not in _WINDOWS:
        raise unsupported(ACCEPTED)


def unsupported(accepted: str) -> UnsupportedMediaTypeError:
    message = f"The request's Content-Encoding is not supported here. Supported: {accepted}."
    return UnsupportedMediaTypeError(
        message, code="unsupported_content_encoding", headers={"accept-encoding": accepted, "connection": "close"}
    )


async def decoded(body: bytes, content_encoding: bytes, limit: int) -> bytes:
    """The body of at most `limit` bytes. It is decoded in a thread: a megabyte takes milliseconds.

    Raises UnsupportedMediaTypeError, RequestTooLargeError, and BadRequestError for data that are not valid.
    """
    check(content_encoding)
    if is_plain(content_encoding) or not body:
        return body
    return await asyncio.to_thread(_decode, body, _WINDOWS[content_encoding.strip().lower()], limit)


def _decode(body: bytes, window: int, limit: int) -> bytes:
    try:
        return _inflate(body, window, limit)
    except zlib.error as error:
        if window == _ZLIB:  # some clients send deflate without zlib's header
            return _decode(body, _RAW, limit)
        raise _invalid() from error


def _inflate(body: bytes, window: int, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    for _ in range(MAX_MEMBERS):
        decoder = zlib.decompressobj(window)
        parts.append(decoder.decompress(body, limit - size + 1))
        size += len(parts[-1])
        if size > limit:
            raise too_large(limit, unread=False)
        if not decoder.eof:
            break
        body = decoder.unused_data
        if not body:
            return b"".join(parts)
        if window != _GZIP:
            break
    raise _invalid()


def _invalid() -> BadRequestError:
    return BadRequestError("We could not decompress the body of your request.", code="invalid_content_encoding")
