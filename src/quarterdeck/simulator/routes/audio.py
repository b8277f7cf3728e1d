"""POST /v1/audio/transcriptions, /v1/audio/translations (vLLM's) and /v1/audio/speech (OpenAI's)."""

import base64
import hashlib
import math
import time
from collections.abc import Sequence
from typing import Any

from msgspec.json import encode

from quarterdeck.simulator.client_connection import ClientConnection
from quarterdeck.simulator.engine import Engine
from quarterdeck.simulator.errors import invalid_request
from quarterdeck.simulator.faults import AT_TOKEN, Faults
from quarterdeck.simulator.model import media
from quarterdeck.simulator.model.tokenizer import split
from quarterdeck.simulator.protocol.answers import DONE, event
from quarterdeck.simulator.protocol.forms import receive_form
from quarterdeck.simulator.protocol.requests import SpeechRequest
from quarterdeck.simulator.routes.delivery import apply_fault, send
from quarterdeck.simulator.routes.execution import receive, response_id

BYTES_PER_SECOND = 16_000
"""Of audio that is not WAV, whose length is not looked for."""
PIECE = 16 * 1024
SIMULATED = ((b"x-simulated", b"true"),)


async def create_transcription(connection: ClientConnection, engine: Engine, faults: Faults) -> None:
    form = await receive_form(connection, engine.config.max_request_body_size_mb << 20)
    hosted = engine.hosted_model(form.fields.get("model"), "media")
    if not (found := form.files.get("file")):
        raise invalid_request("1 validation error:\n  file: Field required", "file")
    audio = found[0]
    seconds = media.wav_seconds(audio)
    if seconds is None:
        seconds = len(audio) / BYTES_PER_SECOND
    text = f"Simulated transcript of {seconds:.2f} s of audio {hashlib.sha256(audio).hexdigest()[:8]}."
    await _prefill(connection, engine)
    if form.is_on("stream"):
        with_usage = form.is_on("stream_include_usage")
        head = {"id": response_id(connection, "trsc"), "object": "transcription.chunk", "created": int(time.time())}
        await _stream_text(
            connection, engine, faults, head | {"model": hosted.name}, text, seconds, with_usage=with_usage
        )
        return
    kind = form.fields.get("response_format", "json")
    if kind == "text":
        await connection.respond(text.encode(), kind=b"text/plain; charset=utf-8")
    elif kind in ("srt", "vtt"):
        await connection.respond(_subtitles(text, seconds, kind).encode(), kind=b"text/plain; charset=utf-8")
    elif kind == "verbose_json":
        segment = {"id": 0, "seek": 0, "start": 0.0, "end": seconds, "text": text, "tokens": [], "temperature": 0.0}
        segment |= {"avg_logprob": 0.0, "compression_ratio": 1.0, "no_speech_prob": 0.0}
        body = {"task": "transcribe", "language": "en", "duration": seconds, "text": text, "segments": [segment]}
        await send(connection, engine, encode(body), faults)
    elif kind == "json":
        usage = {} if "no-usage" in faults else {"usage": {"type": "duration", "seconds": math.ceil(seconds)}}
        await send(connection, engine, encode({"text": text, **usage}), faults)
    else:
        raise invalid_request(f"Invalid response_format: {kind}", "response_format")


async def create_speech(connection: ClientConnection, engine: Engine, faults: Faults) -> None:
    request = await receive(connection, engine, SpeechRequest)
    engine.hosted_model(request.model, "media")
    samples = media.speech(request.input)
    is_raw = request.response_format == "pcm"
    audio = samples if is_raw else media.wav(samples)
    pieces = [audio[at : at + PIECE] for at in range(0, len(audio), PIECE)]
    await _prefill(connection, engine)
    if request.stream_format == "sse":
        given, made = len(split(request.input)), len(samples) // 640
        usage = {"input_tokens": given, "output_tokens": made, "total_tokens": given + made}
        events = [{"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()} for piece in pieces]
        encoded = [event(encode(each)) for each in (*events, {"type": "speech.audio.done", "usage": usage})]
        await connection.open_stream(headers=SIMULATED)
        await send_pieces(connection, engine, faults, encoded)
        return
    await connection.open_stream(b"audio/pcm" if is_raw else b"audio/wav", SIMULATED)
    await send_pieces(connection, engine, faults, pieces)


async def send_pieces(connection: ClientConnection, engine: Engine, faults: Faults, pieces: Sequence[bytes]) -> None:
    """Pieces of a stream that has begun, each as a token of its latency and faults."""
    points = sorted((fault for kind, fault in faults.items() if kind in AT_TOKEN), key=lambda fault: fault.token)
    for at, piece in enumerate(pieces):
        while points and points[0].token <= at:
            if not await apply_fault(connection, engine, points.pop(0), b"", piece):
                return
        await connection.write(piece)
        if (pause := engine.config.inter_token_latency) > 0:
            await engine.clock.sleep(pause)
    await connection.end_stream()


async def _stream_text(
    connection: ClientConnection,
    engine: Engine,
    faults: Faults,
    head: dict[str, Any],
    text: str,
    seconds: float,
    *,
    with_usage: bool,
) -> None:
    tokens = split(text)
    events = []
    for at, token in enumerate(tokens):
        reason = "stop" if at == len(tokens) - 1 else None
        choice = {"delta": {"content": token}, "finish_reason": reason, "stop_reason": None}
        events.append(event(encode(head | {"choices": [choice]})))
    if with_usage:
        given, made = math.ceil(seconds * 50), len(tokens)
        usage = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
        events.append(event(encode(head | {"choices": [], "usage": usage})))
    await connection.open_stream(headers=SIMULATED)
    await send_pieces(connection, engine, faults, [*events, DONE])


async def _prefill(connection: ClientConnection, engine: Engine) -> None:
    connection.cancel_on_disconnect()
    if (pause := engine.config.time_to_first_token) > 0:
        await engine.clock.sleep(pause)


def _subtitles(text: str, seconds: float, kind: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    mark = "," if kind == "srt" else "."
    end = f"00:{minutes:02d}:{rest // 1000:02d}{mark}{rest % 1000:03d}"
    cue = f"00:00:00{mark}000 --> {end}\n{text}\n"
    return f"1\n{cue}" if kind == "srt" else f"WEBVTT\n\n{cue}"
