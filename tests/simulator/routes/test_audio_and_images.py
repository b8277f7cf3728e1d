"""The simulated engine's audio and images, under the SDK; the gateway's own tests use them too."""

from typing import Any

import openai
import pytest
from tests.simulator.harness import http, sdk, sdk_on

from quarterdeck.simulator import SimulatorConfig, create_app
from quarterdeck.simulator.model import media

WAV = media.wav(media.speech("Hello"))


async def test_a_transcript_says_that_it_is_simulated_and_how_long_the_audio_is() -> None:
    async with sdk(media_model=["whisper"]) as client:
        answer = await client.audio.transcriptions.create(model="whisper", file=("a.wav", WAV))
        again = await client.audio.transcriptions.create(model="whisper", file=("b.wav", WAV))
    assert answer.text.startswith("Simulated transcript of 0.25 s") and again.text == answer.text
    assert answer.usage is not None and answer.usage.type == "duration" and answer.usage.seconds == 1


async def test_a_stream_has_vllms_chunks() -> None:
    async with http(create_app(SimulatorConfig(media_model=["whisper"]))) as client:
        files: Any = {
            "model": (None, "whisper"),
            "stream": (None, "true"),
            "stream_include_usage": (None, "true"),
            "file": ("a.wav", WAV),
        }
        answer = await client.post("/v1/audio/transcriptions", files=files)
    lines = [line for line in answer.text.splitlines() if line]
    assert lines[-1] == "data: [DONE]" and '"usage":{"prompt_tokens"' in lines[-2]
    assert all('"object":"transcription.chunk"' in line for line in lines[:-1])


async def test_a_model_of_text_has_no_audio() -> None:
    app = create_app(SimulatorConfig(media_model=["whisper"]))
    async with sdk_on(app) as client:
        with pytest.raises(openai.BadRequestError):
            await client.audio.speech.create(model="simulated", voice="a", input="x")
        with pytest.raises(openai.NotFoundError):
            await client.audio.speech.create(model="other", voice="a", input="x")
    async with sdk() as client:
        with pytest.raises(openai.NotFoundError):
            await client.audio.speech.create(model="simulated", voice="a", input="x")


@pytest.mark.parametrize(
    "files",
    [
        {"model": (None, "whisper")},
        {"model": (None, "whisper"), "file": ("a.wav", WAV), "response_format": (None, "odd")},
    ],
)
async def test_a_form_that_lacks_something_is_a_400(files: Any) -> None:
    async with http(create_app(SimulatorConfig(media_model=["whisper"]))) as client:
        assert (await client.post("/v1/audio/transcriptions", files=files)).status_code == 400
        assert (await client.post("/v1/images/edits", files=files)).status_code == 400
        answer = await client.post("/v1/audio/transcriptions", json={})
        assert answer.status_code == 400
