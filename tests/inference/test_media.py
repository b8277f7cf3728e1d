"""Which media URLs an engine is sent: none but those of hosts that the operator has named."""

from typing import Any

import pytest
from tests.inference.making import a_request

from quarterdeck.errors import BadRequestError
from quarterdeck.inference.media import check_media_urls
from quarterdeck.inference.request import InferenceRequest


def asked(*parts: dict[str, Any]) -> InferenceRequest:
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "?"}, *parts]},
    ]
    return a_request(messages=messages)


def picture(url: object) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize(
    "part",
    [
        picture("http://169.254.169.254/latest/meta-data"),
        picture("https://example.com/a.png"),
        picture("HTTP://localhost:8000/admin/keys"),
        picture("file:///etc/passwd"),
        picture("//host/a.png"),
        picture("http://["),
        picture(" http://inside/"),
        {"type": "audio_url", "audio_url": {"url": "http://inside/a.wav"}},
        {"type": "video_url", "video_url": {"url": "http://inside/a.mp4"}},
        {"type": "input_image", "image_url": "http://inside/a.png"},
    ],
)
def test_an_address_is_refused_by_name(part: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError) as refused:
        check_media_urls(asked(part), ())
    assert (refused.value.code, refused.value.param) == ("media_url_not_allowed", "messages[1].content")


@pytest.mark.parametrize("url", ["data:image/png;base64,AAAA", "DATA:image/png;base64,AAAA"])
def test_what_is_part_of_the_request_is_taken(url: str) -> None:
    check_media_urls(asked(picture(url)), ())


def test_a_host_that_the_operator_has_named_is_allowed_and_no_other() -> None:
    check_media_urls(asked(picture("https://img.example.com/a.png")), ("img.example.com",))
    for other in ("https://img.example.com.evil.net/", "https://img.example.com@evil.net/", "ftp://img.example.com/"):
        with pytest.raises(BadRequestError):
            check_media_urls(asked(picture(other)), ("img.example.com",))


def test_all_may_be_allowed() -> None:
    check_media_urls(asked(picture("https://anywhere.example/a.png")), ("*",))


def test_what_is_no_address_is_left_to_the_engine() -> None:
    check_media_urls(asked(picture(7), {"type": "image_url", "image_url": None}, {"type": "text", "text": "x"}), ())
