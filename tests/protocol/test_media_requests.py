"""What the gateway reads of audio and image requests."""

from typing import Any

import msgspec
import pytest

from quarterdeck.errors import BadRequestError
from quarterdeck.protocol import requests
from quarterdeck.protocol.forms import FormPart
from quarterdeck.protocol.media_requests import (
    check_form_urls,
    check_urls,
    image_facts,
    picture_facts,
    speech_facts,
    transcription_facts,
)


def body(**members: Any) -> bytes:
    return msgspec.json.encode({"model": "m", **members})


def form(file: str = "file", **fields: str) -> list[FormPart]:
    parts = [FormPart(name, value.encode()) for name, value in {"model": "m", **fields}.items()]
    return [*parts, FormPart(file, b"x" * 8000, "a.bin")]


def refuse(url: str) -> bool:
    return url == "https://allowed.example/a.wav"


def test_speech_is_counted_in_characters() -> None:
    facts, members = speech_facts(body(input="日本 hi", voice="a", instructions="slowly"))
    assert (facts.characters, facts.is_streaming) == (5, False)
    assert facts.text_bytes >= len("日本 hi".encode()) + len("slowly")
    assert set(members) == {"model", "input", "voice", "instructions"}
    assert speech_facts(body(input="a", stream_format="sse"))[0].is_streaming


def test_images_are_those_asked_for() -> None:
    facts, _ = image_facts(body(prompt="a", n=3, stream=True))
    assert (facts.images, facts.is_streaming) == (3, True)
    facts = picture_facts(
        [*form("image[]", n="2", prompt="b"), FormPart("image[]", b"y", "b.png"), FormPart("mask", b"z", "m")]
    )
    assert (facts.images, facts.pictures, facts.text_bytes) == (2, 3, 1)


def test_a_file_that_does_not_say_its_length_is_estimated_within_its_bound() -> None:
    facts = transcription_facts(form(stream="true", user="ann"))
    assert (facts.audio_ms, facts.most_audio_ms, facts.is_length_estimated) == (2000, 8000, True)
    assert facts.is_streaming and facts.parsed.user == "ann"


@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ([FormPart("file", b"x", "a")], "model"),
        ([FormPart("model", b"", None), FormPart("file", b"x", "a")], "model"),
        ([FormPart("model", b"m")], "file"),
        (form() + form()[1:], "file"),
        (form("other"), "other"),
        (form(stream="perhaps"), "stream"),
        ([*form()[:1], FormPart("file", b"x")], "file"),
    ],
)
def test_a_form_that_is_wrong_names_the_field(parts: list[FormPart], param: str) -> None:
    with pytest.raises(BadRequestError) as raised:
        transcription_facts(parts)
    assert raised.value.param == param


@pytest.mark.parametrize("n", ["0", "11", "-1", "x", "1.0", "9" * 20])
def test_a_count_out_of_range_is_refused(n: str) -> None:
    with pytest.raises(BadRequestError) as raised:
        picture_facts(form("image", n=n))
    assert raised.value.param == "n"


ADDRESSES = [
    *("http://10.0.0.1/", "HTTPS://x", " \thttps://x", "\x01http://x", "//x/y", "\\\\x\\y", "http:\\\\x", "http:/x"),
    *("file:///etc/passwd", "file:/etc/passwd", "s3://b/k", "gopher://x", "odd+scheme://x"),
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_found_wherever_it_is(address: str) -> None:
    for members in ({"ref_audio": address}, {"a": [{"b": {"C": address}}]}, {"Image": [address]}):
        with pytest.raises(BadRequestError) as raised:
            check_urls(requests.members(body(**members)), refuse)
        assert raised.value.code == "media_url_not_allowed"
    with pytest.raises(BadRequestError):
        check_form_urls([FormPart("image_url", address.encode())], refuse)


@pytest.mark.parametrize(
    "members",
    [
        {"input": "http://x", "prompt": "file:/x", "instructions": "//x", "metadata": {"page": "https://x"}},
        {"ref_audio": "https://allowed.example/a.wav"},
        {"voice": "alloy", "size": "1024x1024", "ratio": "16:9", "extra": {"a": [1, None, True]}},
        {"image": "data:image/png;base64,iVBORw0KGgo="},
    ],
)
def test_texts_and_allowed_addresses_pass(members: dict[str, Any]) -> None:
    check_urls(requests.members(body(**members)), refuse)


@pytest.mark.parametrize("text", ['{"image": "http://10.0.0.1/"}', '["a", {"b": ["//10.0.0.1/"]}]', '"file:///etc/x"'])
def test_an_address_in_the_json_of_a_field_is_found(text: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        check_form_urls(form(extra=text), refuse)
    assert refused.value.code == "media_url_not_allowed" and refused.value.param == "extra"
    check_form_urls(form(extra='{"image": "https://allowed.example/a.wav"}', more="{", prompt=text), refuse)


@pytest.mark.parametrize("start", [b"#EXTM3U\n", b"\xef\xbb\xbf #EXTM3U", b"ffconcat version 1.0\n", b"\n<MPD "])
def test_a_playlist_is_no_audio(start: bytes) -> None:
    parts = [*form()[:-1], FormPart("file", start + b"http://10.0.0.1/", "a.wav")]
    with pytest.raises(BadRequestError, match="playlist"):
        transcription_facts(parts)
