"""Simulated audio and pictures are valid files that other programs read."""

import io
import struct
import wave
import zlib

import pytest

from quarterdeck.simulator.model import media


def test_speech_is_a_wav_file_of_a_length_by_its_text() -> None:
    samples = media.speech("Hello")
    with wave.open(io.BytesIO(media.wav(samples))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 8000)
        assert file.readframes(file.getnframes()) == samples
    assert media.wav_seconds(media.wav(samples)) == pytest.approx(0.25)
    assert media.NOTE in media.wav(samples)
    assert media.speech("Hello") == samples != media.speech("World")


@pytest.mark.parametrize("other", [b"", b"RIFF", b"ID3", b"RIFF\0\0\0\0WAVEdata\x01\0\0\0x"])
def test_other_files_have_no_length(other: bytes) -> None:
    assert media.wav_seconds(other) is None


@pytest.mark.parametrize(
    ("size", "shape"), [("32x16", (32, 16)), ("1024x1024", (64, 64)), (None, (64, 64)), ("x", (64, 64))]
)
def test_a_picture_is_a_png_of_one_colour(size: str | None, shape: tuple[int, int]) -> None:
    data = media.png("a ship", size)
    at, chunks = 8, {}
    while at < len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(name + body)
        chunks[name] = body
        at += 12 + length
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    assert (width, height) == shape
    rows = zlib.decompress(chunks[b"IDAT"])
    assert len(rows) == height * (1 + 3 * width) and rows.count(rows[: 1 + 3 * width]) == height
    assert media.NOTE in chunks[b"tEXt"]
    assert media.png("a ship", size) == data != media.png("a car", size)
