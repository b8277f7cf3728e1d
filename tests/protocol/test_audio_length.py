"""Lengths of audio files: what they state, what decoders may disagree on, and bounds."""

import io
import struct
import wave

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.protocol.audio_length import BYTES_PER_SECOND, length_ms, likely_ms, most_ms


def a_wav(frames: int, rate: int = 8000, width: int = 2, channels: int = 1) -> bytes:
    into = io.BytesIO()
    with wave.open(into, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(b"\0" * frames * width * channels)
    return into.getvalue()


def a_flac(samples: int, rate: int, size: int = 5000) -> bytes:
    packed = (rate << 44) | (1 << 41) | (15 << 36) | samples
    return b"fLaC\x00\x00\x00\x22" + b"\0" * 10 + packed.to_bytes(8, "big") + b"\0" * size


@given(
    frames=st.integers(1, 5000),
    rate=st.sampled_from([8000, 16_000, 44_100]),
    width=st.integers(1, 4),
    channels=st.integers(1, 2),
)
def test_a_wav_file_states_its_length(frames: int, rate: int, width: int, channels: int) -> None:
    audio = a_wav(frames, rate, width, channels)
    assert length_ms(audio) == most_ms(audio) == -(-frames * 1000 // rate)


def test_the_header_of_a_stream_counts_what_is_there() -> None:
    audio = a_wav(8000)
    streamed = audio[:40] + struct.pack("<I", 0xFFFF_FFFF) + audio[44:]
    assert length_ms(streamed) == 1000


def test_a_file_of_empty_chunks_is_not_searched_for_long() -> None:
    head = b"RIFF\0\0\0\0WAVE"
    samples = a_wav(8000)[12:]
    assert length_ms(head + b"junk\0\0\0\0" * 10 + samples) == 1000
    assert length_ms(head + b"junk\0\0\0\0" * 100 + samples) is None


def test_samples_after_the_stated_end_are_not_free() -> None:
    audio = a_wav(8000)
    hidden = audio[:40] + struct.pack("<I", 2) + audio[44:] + b"\0" * 100_000
    assert length_ms(hidden) is None
    assert most_ms(hidden) == -(-len(hidden) * 1000 // BYTES_PER_SECOND)


def test_a_flac_file_states_its_length_but_the_bound_does_not_trust_it() -> None:
    audio = a_flac(48_000 * 90, 48_000)
    assert (length_ms(audio), most_ms(audio)) == (90_000, 90_000)
    short = a_flac(48_000, 48_000, size=2_000_000 // 48)
    assert length_ms(short) == 1000
    assert most_ms(short) > 1000


def test_a_flac_file_that_is_larger_than_its_samples_does_not_say() -> None:
    lying = a_flac(48, 48_000, size=2_000_000)
    assert length_ms(lying) is None
    assert most_ms(lying) >= 2_000_000


def with_format(audio: bytes, *, at: int, kind: str, value: int) -> bytes:
    """The WAV file with a member of its format replaced."""
    return audio[: 20 + at] + struct.pack(kind, value) + audio[20 + at + struct.calcsize(kind) :]


@pytest.mark.parametrize(
    "audio",
    [
        with_format(a_wav(8000), at=12, kind="<H", value=0xFFFF),  # the size of a frame
        with_format(a_wav(8000), at=2, kind="<H", value=2),  # channels
        with_format(a_wav(8000), at=14, kind="<H", value=32),  # bits
        with_format(a_wav(8000), at=4, kind="<I", value=0xFFFF_FFFF),  # rate
        a_wav(8000)[:12] + with_format(a_wav(8000), at=4, kind="<I", value=500_000)[12:36] + a_wav(8000)[12:],
    ],
)
def test_a_wav_file_whose_format_contradicts_itself_does_not_say(audio: bytes) -> None:
    assert length_ms(audio) is None
    assert most_ms(audio) == len(audio)


@pytest.mark.parametrize(("inner", "length"), [(1, 1000), (3, 1000), (0x55, None), (0x11, None)])
def test_an_extensible_format_is_what_its_id_says(inner: int, length: int | None) -> None:
    audio = a_wav(8000)
    extended = struct.pack("<HHIH", 22, 16, 0, inner) + b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
    form = struct.pack("<H", 0xFFFE) + audio[22:36] + extended
    assert length_ms(audio[:16] + struct.pack("<I", len(form)) + form + audio[36:]) == length


@pytest.mark.parametrize(
    "audio",
    [
        *(b"", b"RIFF", b"RIFF\0\0\0\0WAVE", b"ID3" + b"x" * 500, b"fLaC", b"fLaC\x01" + b"\0" * 40),
        a_wav(100)[:20] + struct.pack("<H", 0x11) + a_wav(100)[22:],  # ADPCM
        a_wav(0),
    ],
)
def test_other_files_do_not_say(audio: bytes) -> None:
    assert length_ms(audio) is None
    assert most_ms(audio) == len(audio)
    assert likely_ms(len(audio)) <= most_ms(audio)


@given(st.binary(max_size=200), st.sampled_from([b"", b"RIFF\0\0\0\0WAVE", b"RIFX\0\0\0\0WAVEfmt ", b"fLaC\0\0\0\x22"]))
def test_no_file_is_an_error_and_none_has_more_than_its_bound(rest: bytes, head: bytes) -> None:
    audio = head + rest
    stated = length_ms(audio)
    assert stated is None or 0 < stated <= most_ms(audio)
