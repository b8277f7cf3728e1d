"""Answers of audio and image requests: what they were billed by, and vLLM's stream of a transcription in OpenAI's form.
Pure."""

import math
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from quarterdeck.protocol import sse
from quarterdeck.protocol.usage import Usage, parse_usage

MAX_SECONDS = 10**7
IMAGE_DONE = ("image_generation.completed", "image_edit.completed")
"""Types of the event with which an image of a stream is complete."""


class Reported(msgspec.Struct, frozen=True):
    """What an engine says of its answer. None: nothing."""

    usage: Usage | None = None
    audio_ms: int | None = None
    images: int | None = None


class _Image(msgspec.Struct, gc=False):
    """Its base64 is skipped."""


class MediaAnswerFacts(msgspec.Struct, gc=False):
    """A whole answer, or an event."""

    type: Any = None
    usage: Any = None
    duration: Any = None
    data: list[_Image] | None = None
    error: Any = None
    object: Any = None

    @property
    def is_error(self) -> bool:
        return bool(self.error) or self.object == "error" or self.type == "error"

    @property
    def is_image(self) -> bool:
        return self.type in IMAGE_DONE

    @property
    def reported(self) -> Reported:
        usage, seconds = None, self.duration
        if isinstance(self.usage, dict):
            if self.usage.get("type") == "duration":
                seconds = self.usage.get("seconds")
            else:
                usage = _usage(self.usage)
        return Reported(usage, _ms(seconds), None if self.data is None else len(self.data))


def read_answer(text: bytes) -> MediaAnswerFacts:
    """A whole answer, or the data of an event. Raises ValueError for what is not JSON."""
    try:
        text.decode()
        try:
            return msgspec.json.decode(text, type=MediaAnswerFacts)
        except msgspec.ValidationError:  # a text in quotes, or members of other types
            found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError("not JSON") from error
    if not isinstance(found, dict):
        return MediaAnswerFacts()
    return MediaAnswerFacts(**{name: found.get(name) for name in ("type", "usage", "duration", "error", "object")})


class TranscriptEvents:
    """Turns vLLM's `transcription.chunk` events into OpenAI's `transcript.text.delta` and `transcript.text.done`.

    Clients of OpenAI's API tell events by their `type`, which vLLM's have not. Other events stay as they are.
    """

    def __init__(self) -> None:
        self._text: list[str] = []
        self._has_chunks = False
        self._is_done = False
        self.usage: Usage | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the stream may end here."""
        return self._is_done or not self._has_chunks

    def convert(self, whole: bytes) -> bytes:
        """Whole events in, whole events out."""
        return b"".join([self._event(event) for event in sse.events(whole)])

    def _event(self, event: bytes) -> bytes:
        data = sse.data(event)
        if data == b"[DONE]" and self._has_chunks:
            self._is_done = True
            done: dict[str, Any] = {"type": "transcript.text.done", "text": "".join(self._text)}
            if (usage := self.usage) is not None:
                done["usage"] = {
                    "type": "tokens",
                    "input_tokens": usage.input,
                    "output_tokens": usage.output,
                    "total_tokens": usage.input + usage.output,
                }
            return _encoded(done)
        chunk = sse.parse_json(data) if b"transcription.chunk" in data or b"translation.chunk" in data else None
        if not isinstance(chunk, dict) or not isinstance(chunk.get("choices"), list):
            return event
        self._has_chunks = True
        if isinstance(stated := chunk.get("usage"), dict):
            self.usage = _usage(stated) or self.usage
        delta = "".join(_content(choice) for choice in chunk["choices"])
        if not delta:
            return b""
        self._text.append(delta)
        return _encoded({"type": "transcript.text.delta", "delta": delta})


def _content(choice: object) -> str:
    delta = choice.get("delta") if isinstance(choice, dict) else None
    content = delta.get("content") if isinstance(delta, dict) else None
    return content if isinstance(content, str) else ""


def _encoded(event: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode(event)


def _usage(stated: dict[str, Any]) -> Usage | None:
    try:
        return parse_usage(stated)
    except msgspec.ValidationError:
        return None


def _ms(seconds: object) -> int | None:
    """Milliseconds, rounded up, of a number or a number in a string, as vLLM's `duration` is."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float | str):
        return None
    try:
        exact = Decimal(str(seconds))
    except InvalidOperation:
        return None
    if not exact.is_finite() or not 0 <= exact <= MAX_SECONDS:
        return None
    return math.ceil(exact * 1000)
