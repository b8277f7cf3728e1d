"""Audio and pictures without a model: a tone for each character, a square of one colour. Deterministic and valid.

Both say that they are simulated: a WAV file in its software chunk, a PNG file in its comment.
"""

import hashlib
import math
import struct
import zlib
from functools import lru_cache

RATE = 8000
"""Samples a second, 16 bits each."""
SAMPLES = 400
"""Of a character: 50 ms."""
MOST_PIXELS = 64
"""Of a picture's side, whatever size is asked for."""
NOTE = b"simulated by quarterdeck"


def speech(text: str) -> bytes:
    """Raw samples (PCM, little endian)."""
    return b"".join([_tone(ord(character) % 64) for character in text])


def wav(samples: bytes) -> bytes:
    """Samples as a WAV file."""
    note = b"INFOISFT" + struct.pack("<I", len(NOTE)) + NOTE
    chunks = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    chunks += b"LIST" + struct.pack("<I", len(note)) + note
    chunks += b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def wav_seconds(data: bytes) -> float | None:
    """The length of a WAV file. None: it is something else."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return None
    at, rate = 12, 0
    while at + 8 <= len(data):
        name, size = data[at : at + 4], struct.unpack("<I", data[at + 4 : at + 8])[0]
        if name == b"fmt ":
            rate = struct.unpack("<I", data[at + 16 : at + 20])[0]  # bytes a second
        elif name == b"data":
            return size / rate if rate else None
        at += 8 + size + (size & 1)
    return None


def png(seed: str, size: str | None) -> bytes:
    """A picture of one colour, which `seed` decides. `size`: such as 1024x1024."""
    wide, _, high = (size or "").partition("x")
    width = min(int(wide), MOST_PIXELS) if wide.isdecimal() and int(wide) else MOST_PIXELS
    height = min(int(high), MOST_PIXELS) if high.isdecimal() and int(high) else MOST_PIXELS
    row = b"\0" + hashlib.sha256(seed.encode()).digest()[:3] * width
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [
        *(_chunk(b"IHDR", head), _chunk(b"tEXt", b"Comment\0" + NOTE)),
        *(_chunk(b"IDAT", zlib.compress(row * height)), _chunk(b"IEND", b"")),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@lru_cache(maxsize=64)
def _tone(pitch: int) -> bytes:
    step = 2 * math.pi * (200 + 10 * pitch) / RATE
    return struct.pack(f"<{SAMPLES}h", *[int(8000 * math.sin(step * at)) for at in range(SAMPLES)])
