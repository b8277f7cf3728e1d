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
MAX_RATE = 768_000
"""Samples a second: decoders refuse higher rates, or read them as something else."""
_UNCOMPRESSED = (1, 3)
_EXTENSIBLE = 0xFFFE
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
    at, per_second = 12, 0
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(data):
            return None
        name, size = data[at : at + 4], struct.unpack(order + "I", data[at + 4 : at + 8])[0]
        if name == b"fmt ":
            if per_second or not (per_second := _bytes_per_second(data[at + 8 : at + 8 + min(size, 40)], order)):
                return None
        elif name == b"data":
            left = len(data) - at - 8
            size = min(size, left)  # a stream's header says 0xFFFFFFFF
            return _stated(size, per_second) if left - size <= MAX_TRAILER else None
        at += 8 + size + (size & 1)
    return None


def _bytes_per_second(found: bytes, order: str) -> int:
    """Of a format chunk. 0: its samples are compressed, or it contradicts itself: some decoders go by the size of a
    frame that is stated, others by that of its samples."""
    if len(found) < 16:
        return 0
    kind, channels, rate, _, frame, bits = struct.unpack(order + "HHIIHH", found[:16])
    if kind == _EXTENSIBLE:  # the format is the beginning of an id
        kind = struct.unpack(order + "H", found[24:26])[0] if len(found) == 40 else 0
    if kind not in _UNCOMPRESSED or frame != channels * -(-bits // 8) or rate > MAX_RATE:
        return 0
    return int(frame * rate)


def _flac(data: bytes) -> int | None:
    """Of a file whose first block says how many samples follow. None: there is no room for so few."""
    if data[:4] != b"fLaC" or len(data) < _FLAC_INFO or data[4] & 0x7F:
        return None
    packed = int.from_bytes(data[18:26], "big")
    count, rate = packed & 0xF_FFFF_FFFF, packed >> 44
    channels, bits = (packed >> 41 & 7) + 1, (packed >> 36 & 31) + 1
    if count * channels * bits // 8 + MAX_TRAILER < len(data) or rate > MAX_RATE:
        return None  # larger than its samples would be uncompressed: it has more of them, or pictures
    return _stated(count, rate)


def _stated(count: int, per_second: int) -> int | None:
    if not count or not per_second:
        return None
    found = -(-count * 1000 // per_second)
    return found if found <= MAX_MS else None
