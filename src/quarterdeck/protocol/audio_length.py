"""The length of an audio file, as far as its first bytes and its size say. Pure.

WAV and FLAC state it exactly. Of other formats only a bound is known: they have at least BYTES_PER_SECOND.
"""

import struct

BYTES_PER_SECOND = 1000
"""8 kbit/s: the lowest rate at which speech is stored."""
LIKELY_BYTES_PER_SECOND = 4000
"""32 kbit/s: between the usual rates of Opus and of MP3 for speech."""
MAX_MS = 7 * 86_400_000
"""A week: a header that says more is wrong."""
MAX_TRAILER = 64 * 1024
"""Bytes after the samples: names and comments. Where there is more, a decoder may read on."""
MAX_CHUNKS = 64
"""Before the samples: empty ones would take seconds of the event loop."""
_UNCOMPRESSED = (1, 3, 0xFFFE)
_FLAC_INFO = 26


def length_ms(data: bytes) -> int | None:
    """Milliseconds, rounded up. None: the file does not say."""
    found = _wav(data)
    return _flac(data) if found is None else found


def most_ms(data: bytes) -> int:
    """The most that the file can have. A WAV file has what it says; a FLAC file's statement may be wrong."""
    if (stated := _wav(data)) is not None:
        return stated
    return max(_flac(data) or 0, -(-len(data) * 1000 // BYTES_PER_SECOND))


def likely_ms(size: int) -> int:
    """Of a file of this many bytes that does not say."""
    return -(-size * 1000 // LIKELY_BYTES_PER_SECOND)


def _wav(data: bytes) -> int | None:
    """Of uncompressed samples that fill the file. None: it is something else, or decoders may differ on it."""
    if data[:4] not in (b"RIFF", b"RIFX") or data[8:12] != b"WAVE":
        return None
    order = "<" if data[:4] == b"RIFF" else ">"
    at, frame, rate = 12, 0, 0
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(data):
            return None
        name, size = data[at : at + 4], struct.unpack(order + "I", data[at + 4 : at + 8])[0]
        if name == b"fmt " and size >= 16 and at + 24 <= len(data):
            kind, _, rate, _, frame, _ = struct.unpack(order + "HHIIHH", data[at + 8 : at + 24])
            if kind not in _UNCOMPRESSED:
                return None
        elif name == b"data":
            left = len(data) - at - 8
            size = min(size, left)  # a stream's header says 0xFFFFFFFF
            return _stated(size, frame * rate) if left - size <= MAX_TRAILER else None
        at += 8 + size + (size & 1)
    return None


def _flac(data: bytes) -> int | None:
    """Of a file whose first block says how many samples follow."""
    if data[:4] != b"fLaC" or len(data) < _FLAC_INFO or data[4] & 0x7F:
        return None
    packed = int.from_bytes(data[18:26], "big")
    return _stated(packed & 0xF_FFFF_FFFF, packed >> 44)


def _stated(count: int, per_second: int) -> int | None:
    if not count or not per_second:
        return None
    found = -(-count * 1000 // per_second)
    return found if found <= MAX_MS else None
