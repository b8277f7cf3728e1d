"""Traces of one batch of records, encoded and compressed once, whatever the number of sinks.

A batch waits in Redis as raw deflate that ends at a byte without a final block. So an export joins any number of
batches into one gzip member without compressing again: gzip's check value is computed from the batches' own.
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

LEVEL = 1
"""zlib's fastest: spans repeat themselves, so that a higher one gains little."""

_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"  # gzip, deflate, no name and time, fastest, any system
_LAST_BLOCK = b"\x03\x00"
_META = struct.Struct("<III")
_POLYNOMIAL = 0xEDB88320


About = tuple[str, str | None, str | None, float]
"""Id, user, session and start (Unix seconds) of a request."""


@dataclass(frozen=True, slots=True)
class TraceBatch:
    """Encoded traces of an organisation."""

    traces: int
    size: int
    """Bytes before compression."""
    crc: int
    """CRC-32 of them."""
    sizes: bytes
    """The uncompressed size of each trace, 32 bits each, so that a batch can be split."""
    data: bytes
    """Raw deflate without a final block."""
    about: bytes = b""
    """Of traces with contents: a list of `About`, in JSON, one for each trace. Contents can be deleted while they
    wait."""

    @property
    def meta(self) -> bytes:
        """Everything but `data`, for Redis."""
        return _META.pack(self.traces, self.size, self.crc) + self.sizes

    @classmethod
    def read(cls, meta: bytes, data: bytes) -> "TraceBatch":
        """The reverse of `meta`. Raises ValueError."""
        if len(meta) < _META.size:
            raise ValueError("a batch of traces without its sizes")
        traces, size, crc = _META.unpack_from(meta)
        return cls(traces, size, crc, meta[_META.size :], data)

    def unpacked(self) -> list[bytes]:
        """The traces. Raises zlib.error."""
        whole = zlib.decompressobj(-zlib.MAX_WBITS).decompress(self.data)
        ends, at = [], 0
        for (size,) in struct.iter_unpack("<I", self.sizes):
            ends.append((at, at + size))
            at += size
        return [whole[begin:end] for begin, end in ends]


def pack(traces: Sequence[bytes], about: Sequence[About] = ()) -> TraceBatch:
    """Compress traces. `about`: whose contents they have, one for each."""
    whole = b"".join(traces)
    sizes = struct.pack(f"<{len(traces)}I", *map(len, traces))
    return TraceBatch(
        len(traces),
        len(whole),
        zlib.crc32(whole),
        sizes,
        _deflated(whole),
        msgspec.json.encode(about) if about else b"",
    )


def gzipped(head: bytes, batches: Sequence[TraceBatch]) -> bytes:
    """One gzip member: `head`, then the batches."""
    crc, size = zlib.crc32(head), len(head)
    for batch in batches:
        crc, size = combined_crc(crc, batch.crc, batch.size), size + batch.size
    trailer = struct.pack("<II", crc, size & 0xFFFFFFFF)
    return b"".join((_HEADER, _deflated(head), *[batch.data for batch in batches], _LAST_BLOCK, trailer))


def combined_crc(first: int, second: int, second_size: int) -> int:
    """CRC-32 of two parts together, of their own and the second one's size (as zlib's crc32_combine)."""
    return _multiply(_power_of_x(8 * second_size), first) ^ second


def _deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)


def _multiply(a: int, b: int) -> int:
    """The product of two polynomials over GF(2), modulo CRC-32's; the highest bit is the constant term."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ _POLYNOMIAL if b & 1 else b >> 1
    return product


def _power_of_x(exponent: int) -> int:
    """x**exponent, modulo CRC-32's polynomial; at most 2**32 bytes."""
    power = 1 << 31
    for square in _SQUARES:
        if exponent & 1:
            power = _multiply(square, power)
        exponent >>= 1
    return power


def _squares() -> tuple[int, ...]:
    """x, x², x⁴, …"""
    squares = [1 << 30]
    while len(squares) < 35:
        squares.append(_multiply(squares[-1], squares[-1]))
    return tuple(squares)


_SQUARES = _squares()
