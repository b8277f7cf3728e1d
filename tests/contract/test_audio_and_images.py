"""Audio and images under OpenAI's SDK: passed through to a simulated engine, billed by their units."""

import base64
import io
import json
import math
import struct
import wave
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import openai
import pytest
from tests.contract.platform import NARROW, PAINTS, POOR, USER, Platform
from tests.servers import wait_until

PNG = b"\x89PNG\r\n\x1a\n"
VIDEOS = "/v1/videos"
DEPRECATED = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
"""By OpenAI, in its SDK."""


@pytest.fixture
def http(platform: Platform) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=platform.gateway.url, headers={"authorization": f"Bearer {USER}"}, timeout=20) as made:
        yield made


def a_wav(seconds: float = 1.5, rate: int = 8000) -> bytes:
    """A tone, as any program writes it."""
    into = io.BytesIO()
    with wave.open(into, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        count = int(seconds * rate)
        file.writeframes(struct.pack(f"<{count}h", *[int(9000 * math.sin(at / 5)) for at in range(count)]))
    return into.getvalue()


def test_audio_is_transcribed_and_billed_by_the_seconds_that_the_engine_reports(
    client: openai.OpenAI, platform: Platform
) -> None:
    answer = client.audio.transcriptions.with_raw_response.create(model="whisper-1", file=("a.wav", a_wav(1.5)))
    parsed = answer.parse()
    assert parsed.text.startswith("Simulated transcript of 1.50 s")
    assert parsed.usage is not None and parsed.usage.type == "duration" and parsed.usage.seconds == 2
    record = platform.record(answer.headers["x-request-id"])
    assert (record.operation, record.model, record.status) == ("audio_transcriptions", "whisper", "ok")
    assert (record.audio_ms, record.usage_source, record.cost) == (2000, "engine", Decimal("0.0002"))


@pytest.mark.parametrize(
    ("form", "has", "content_type"),
    [
        ("text", "Simulated transcript of 1.50 s", "text/plain"),
        ("srt", "00:00:00,000 --> 00:00:01,500", "text/plain"),
        ("vtt", "WEBVTT", "text/plain"),
    ],
)
def test_texts_are_passed_on_and_billed_by_the_files_own_length(
    client: openai.OpenAI, platform: Platform, form: Any, has: str, content_type: str
) -> None:
    answer = client.audio.transcriptions.with_raw_response.create(
        model="whisper", file=("a.wav", a_wav(1.5)), response_format=form
    )
    assert has in answer.text and answer.headers["content-type"].startswith(content_type)
    record = platform.record(answer.headers["x-request-id"])
    assert (record.audio_ms, record.usage_source, record.cost) == (1500, "counted", Decimal("0.00015"))


def test_a_verbose_answer_has_its_duration_billed(client: openai.OpenAI, platform: Platform) -> None:
    answer = client.audio.transcriptions.with_raw_response.create(
        model="whisper",
        file=("a.wav", a_wav(0.25)),
        response_format="verbose_json",
        timestamp_granularities=["segment"],
    )
    found = answer.parse()
    assert found.duration == 0.25 and found.segments
    record = platform.record(answer.headers["x-request-id"])
    assert (record.audio_ms, record.usage_source) == (250, "engine")


@DEPRECATED
def test_audio_is_translated(client: openai.OpenAI, platform: Platform) -> None:
    answer = client.audio.translations.with_raw_response.create(model="whisper", file=("a.wav", a_wav(1)))
    assert answer.parse().text.startswith("Simulated")
    assert platform.record(answer.headers["x-request-id"]).operation == "audio_translations"


def test_audio_that_does_not_say_its_length_is_estimated_where_the_engine_does_not_either(
    client: openai.OpenAI, platform: Platform
) -> None:
    answer = client.audio.transcriptions.with_raw_response.create(
        model="whisper", file=("a.mp3", b"\xff\xfb" + b"x" * 7998), response_format="text"
    )
    record = platform.record(answer.headers["x-request-id"])
    assert (record.audio_ms, record.usage_source) == (2000, "estimated")


def test_a_transcription_is_streamed_in_openais_events_with_its_tokens(
    client: openai.OpenAI, platform: Platform
) -> None:
    stream = client.audio.transcriptions.create(model="whisper", file=("a.wav", a_wav(1.5)), stream=True)
    events = list(stream)
    assert {each.type for each in events[:-1]} == {"transcript.text.delta"} and len(events) > 3
    done = events[-1]
    assert done.type == "transcript.text.done" and done.usage is not None
    assert done.text == "".join(each.delta for each in events if each.type == "transcript.text.delta")
    record = platform.record(stream.response.headers["x-request-id"])
    assert (record.input_tokens, record.output_tokens) == (done.usage.input_tokens, done.usage.output_tokens) != (0, 0)
    assert (record.audio_ms, record.status) == (1500, "ok")


def test_speech_is_streamed_and_billed_by_its_characters(client: openai.OpenAI, platform: Platform) -> None:
    text = "Grüße aus Oslo. " * 60
    with client.audio.speech.with_streaming_response.create(model="tts", voice="alloy", input=text) as answer:
        audio = b"".join(answer.iter_bytes())
        assert answer.headers["content-type"] == "audio/wav"
        assert answer.headers["x-content-type-options"] == "nosniff"
    with wave.open(io.BytesIO(audio)) as file:
        assert file.getnframes() / file.getframerate() == pytest.approx(0.05 * len(text))
    record = platform.record(answer.headers["x-request-id"])
    assert (record.operation, record.characters, record.usage_source) == ("audio_speech", len(text), "counted")
    assert record.cost == Decimal(len(text)) * Decimal("0.000015")


def test_speech_as_events_has_its_tokens_recorded(client: openai.OpenAI, platform: Platform) -> None:
    with client.audio.speech.with_streaming_response.create(
        model="tts", voice="alloy", input="Hello there", stream_format="sse"
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: {")]
    assert [each["type"] for each in lines][-1] == "speech.audio.done" and len(lines) > 1
    record = platform.record(answer.headers["x-request-id"])
    assert (record.input_tokens, record.output_tokens) == (
        lines[-1]["usage"]["input_tokens"],
        lines[-1]["usage"]["output_tokens"],
    )


def test_images_are_generated_and_billed_each(client: openai.OpenAI, platform: Platform) -> None:
    answer = client.images.with_raw_response.generate(model="painter", prompt="a red car", n=2, size="256x256")
    found = answer.parse()
    assert found.data is not None
    pictures = [base64.b64decode(str(each.b64_json)) for each in found.data]
    assert len(set(pictures)) == 2 and all(each.startswith(PNG) for each in pictures)
    record = platform.record(answer.headers["x-request-id"])
    assert (record.operation, record.images) == ("images_generations", 2)
    assert found.usage is not None and record.output_tokens == found.usage.output_tokens == 200
    assert record.cost == 2 * Decimal("0.02") + Decimal(200) / 10**6


def test_a_streamed_image_is_one_image_however_many_partial_ones_came(
    client: openai.OpenAI, platform: Platform
) -> None:
    stream = client.images.generate(model="painter", prompt="a ship", stream=True, partial_images=2)
    events = list(stream)
    assert [each.type for each in events] == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert platform.record(stream.response.headers["x-request-id"]).images == 1


def test_images_are_edited(client: openai.OpenAI, platform: Platform) -> None:
    given = [("a.png", PNG + b"1", "image/png"), ("b.png", PNG + b"2", "image/png")]
    answer = client.images.with_raw_response.edit(model="painter", prompt="make it blue", image=given)
    found = answer.parse()
    assert found.data is not None and found.usage is not None
    assert found.usage.input_tokens_details.image_tokens == 100
    record = platform.record(answer.headers["x-request-id"])
    assert (record.operation, record.images) == ("images_edits", 1)


def test_an_azure_client_names_the_model_in_the_path(platform: Platform) -> None:
    azure = openai.AzureOpenAI(
        azure_endpoint=platform.gateway.url, api_key=USER, api_version="2025-01-01", max_retries=0
    )
    with azure:
        heard = azure.audio.transcriptions.create(model="whisper", file=("a.wav", a_wav(1)))
        painted = azure.images.generate(model="painter", prompt="a ship")
    assert heard.text.startswith("Simulated") and painted.data


@pytest.mark.parametrize(
    ("call", "status", "code", "says"),
    [
        (lambda c: c.audio.speech.create(model="chat", voice="a", input="x"), 400, "unsupported_operation", "tts"),
        (lambda c: c.audio.speech.create(model="tts-1", voice="a", input="x"), 404, "model_not_found", "tts"),
        (lambda c: c.images.generate(model="whisper", prompt="x"), 400, "unsupported_operation", "painter"),
        (lambda c: c.images.generate(model="painter", prompt="x", n=11), 400, "integer_above_max_value", "n"),
        (lambda c: c.images.generate(model="painter", prompt=""), 400, "missing_required_parameter", "prompt"),
        (lambda c: c.audio.speech.create(model="tts", voice="a", input=""), 400, "invalid_value", "input"),
        (
            lambda c: c.audio.transcriptions.create(model="whisper", file=("a.wav", b"")),
            400,
            "invalid_value",
            "file",
        ),
        (
            lambda c: c.audio.transcriptions.create(model="whisper", file=("a", b"x"), response_format="odd"),
            400,
            None,
            "response_format",
        ),
    ],
)
def test_a_request_that_can_not_be_served_says_why(
    client: openai.OpenAI, call: Any, status: int, code: str | None, says: str
) -> None:
    with pytest.raises(openai.APIStatusError) as raised:
        call(client)
    assert (raised.value.status_code, raised.value.code) == (status, code)
    assert says in raised.value.message


def test_models_that_a_key_may_not_use_are_not_named(platform: Platform) -> None:
    with platform.client(NARROW) as narrow, pytest.raises(openai.NotFoundError) as raised:
        narrow.audio.speech.create(model="tts", voice="a", input="x")
    assert raised.value.code == "model_not_found" and "Models that" not in raised.value.message


@pytest.mark.parametrize(
    "extra",
    [
        {"ref_audio": "http://10.0.0.1/secret"},
        {"extra": {"deep": ["file:///etc/passwd"]}},
        {"image_url": " https://169.254.169.254/"},
    ],
)
def test_an_address_that_an_engine_would_fetch_is_refused(client: openai.OpenAI, extra: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.audio.speech.create(model="tts", voice="a", input="see https://example.com/", extra_body=extra)
    assert raised.value.code == "media_url_not_allowed"


def test_a_form_that_is_none_is_refused(http: httpx.Client) -> None:
    answer = http.post("/v1/audio/transcriptions", json={"model": "whisper"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")
    two = [("model", (None, "whisper")), ("model", (None, "other")), ("file", ("a.wav", a_wav(0.1)))]
    answer = http.post("/v1/audio/transcriptions", files=two)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")
    answer = http.post("/v1/audio/transcriptions", files={"model": (None, "whisper"), "file": (None, "text")})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")


def test_another_model_answers_where_an_endpoint_is_lost(client: openai.OpenAI, platform: Platform) -> None:
    answer = client.audio.speech.with_raw_response.create(model="speaker", voice="a", input="hello")
    assert answer.content.startswith(b"RIFF")
    record = platform.record(answer.headers["x-request-id"])
    assert (record.model, record.route, record.attempts[-1].error) == ("tts", "speaker", None)
    assert record.cost == Decimal(5) * Decimal("0.000015")


def test_a_budget_holds_what_the_images_will_cost(platform: Platform) -> None:
    """Of 0.08 $, ten images at 0.02 $ are refused and two are not; their tokens are held as well, and given back."""
    with platform.client(PAINTS) as paints:
        with pytest.raises(openai.RateLimitError) as raised:
            paints.images.generate(model="painter", prompt="x", n=10)
        assert raised.value.code == "insufficient_quota"
        answer = paints.images.with_raw_response.generate(model="painter", prompt="x", n=2)
        assert platform.record(answer.headers["x-request-id"]).cost == Decimal("0.0402")
        with pytest.raises(openai.RateLimitError):
            paints.images.generate(model="painter", prompt="x", n=2)
    with platform.client(POOR) as poor, pytest.raises(openai.RateLimitError):
        poor.audio.speech.create(model="tts", voice="a", input="x")


@pytest.mark.parametrize("fault", ["cut=3", "reset=2"])
def test_audio_that_is_cut_off_never_looks_complete(platform: Platform, fault: str) -> None:
    with httpx.Client(base_url=platform.gateway.url, timeout=20) as http:
        headers = {"authorization": f"Bearer {USER}", "x-fault": fault}
        body = {"model": "tts", "voice": "a", "input": "x" * 4000}
        with (
            http.stream("POST", "/v1/audio/speech", json=body, headers=headers) as answer,
            pytest.raises(httpx.RemoteProtocolError),
        ):
            for _ in answer.iter_bytes():
                pass
    record = platform.record(answer.headers["x-request-id"])
    assert (record.status, record.error_code, record.characters) == ("error", "engine_error", 4000)


def test_an_engines_refusal_is_translated_and_costs_nothing(client: openai.OpenAI, platform: Platform) -> None:
    with pytest.raises(openai.InternalServerError) as raised:
        client.images.generate(model="painter", prompt="x", extra_headers={"x-fault": "500"})
    record = platform.record(raised.value.response.headers["x-request-id"])
    assert (record.status, record.images, record.cost) == ("error", 0, 0)


def test_a_client_that_hangs_up_stops_the_engine(platform: Platform) -> None:
    def disconnects() -> float:
        _, text = platform.simulator.get("/metrics")
        name = "quarterdeck_simulator_client_disconnects"
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))

    before = disconnects()
    with httpx.Client(base_url=platform.gateway.url, timeout=20) as http:
        headers = {"authorization": f"Bearer {USER}", "x-fault": "stall=2"}
        body = {"model": "tts", "voice": "a", "input": "x" * 4000}
        with http.stream("POST", "/v1/audio/speech", json=body, headers=headers) as answer:
            next(answer.iter_bytes())
    wait_until(lambda: disconnects() > before, what=lambda: "the engine was not stopped")
    record = platform.record(answer.headers["x-request-id"])
    assert (record.status, record.characters, record.cost) == ("cancelled", 4000, Decimal("0.06"))


@DEPRECATED
def test_what_no_model_serves_is_a_501(client: openai.OpenAI, http: httpx.Client) -> None:
    with pytest.raises(openai.APIStatusError) as raised:
        client.images.create_variation(model="painter", image=("a.png", PNG))
    assert (raised.value.status_code, raised.value.code) == (501, "not_served")
    assert "serves: [images.variations]" in raised.value.message
    for path in ("/v1/audio/voices", "/v1/realtime", VIDEOS):
        assert http.get(path).status_code == 501
    answer = http.get("/v1/audio/speech")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_models_say_what_they_serve(client: openai.OpenAI) -> None:
    found = {each.id: getattr(each, "serves", None) for each in client.models.list()}
    assert found["whisper-1"] == ["audio.transcriptions", "audio.translations"]
    assert found["chat"] is None and found["speaker"] == ["audio.speech"]
