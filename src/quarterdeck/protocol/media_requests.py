"""Audio and image requests of OpenAI's API: what the gateway reads of them, whether JSON or forms. Pure.

All other members and fields are sent on. Engines fetch what some of them name (`ref_audio`, `image`), so every URL in
them is checked, whatever the member's name.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from quarterdeck.errors import BadRequestError
from quarterdeck.protocol import requests
from quarterdeck.protocol.audio_length import length_ms, likely_ms, most_ms
from quarterdeck.protocol.forms import FormPart
from quarterdeck.protocol.requests import Least, MediaRequest

MAX_IMAGES = 10
"""Of one request, as at OpenAI: budgets hold the price of all of them."""
AUDIO = ("file",)
IMAGES = ("image", "image[]")
"""Names of the files of a form."""
_TEXTS = frozenset(("input", "prompt", "instructions", "user", "safety_identifier", "metadata"))
"""Members that are read as text only: a URL in them is not fetched."""
_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"<?xml", b"<MPD")
"""How files begin that lead a decoder to others."""
_URL = re.compile(
    r"[\s\x00-\x20]*(?:(?:[a-z][a-z0-9+.-]*:)?[/\\]{2}|(?:https?|ftps?|file|gopher|dict|ldaps?|jar|s3|gs):)",
    re.IGNORECASE,
)
"""What some program takes for an address: with any scheme or none, backslashes, or one slash."""


class SpeechRequest(MediaRequest, frozen=True, kw_only=True):
    input: str
    response_format: str | None = None
    stream_format: str | None = None


class ImageRequest(MediaRequest, frozen=True, kw_only=True):
    prompt: str = ""
    n: Least | None = None
    stream: bool | None = None


class TranscriptionRequest(MediaRequest, frozen=True, kw_only=True):
    """Of a form, as is ImageRequest for edits and variations."""

    stream: bool | None = None
    response_format: str | None = None


class MediaFacts(msgspec.Struct, frozen=True):
    """What a request is counted by, and what it can be at most."""

    parsed: MediaRequest
    is_streaming: bool = False
    characters: int = 0
    """Of the text that is turned into speech."""
    images: int = 0
    """That are asked for."""
    audio_ms: int = 0
    """The length of the audio."""
    is_length_estimated: bool = False
    """The file does not say its length."""
    most_audio_ms: int = 0
    """The length that a file of its size can have."""
    text_bytes: int = 0
    """Of the prompt's text."""
    pictures: int = 0
    """That are part of the prompt."""


def speech_facts(body: bytes) -> tuple[MediaFacts, dict[str, msgspec.Raw]]:
    """Raises BadRequestError."""
    parsed, members = _decoded(body, SpeechRequest)
    if not parsed.input:
        raise BadRequestError("'input' must not be empty.", param="input", code="invalid_value")
    size = len(parsed.input.encode("utf-8", "surrogatepass")) + len(bytes(members.get("instructions", b"")))
    return MediaFacts(parsed, parsed.stream_format == "sse", characters=len(parsed.input), text_bytes=size), members


def image_facts(body: bytes) -> tuple[MediaFacts, dict[str, msgspec.Raw]]:
    """Of a generation. Raises BadRequestError."""
    parsed, members = _decoded(body, ImageRequest)
    if not parsed.prompt:
        raise _missing("prompt")
    _check_count(parsed.n)
    size = len(parsed.prompt.encode("utf-8", "surrogatepass"))
    return MediaFacts(parsed, bool(parsed.stream), images=parsed.n or 1, text_bytes=size), members


def transcription_facts(form: Sequence[FormPart]) -> MediaFacts:
    """Of a transcription or a translation. Raises BadRequestError."""
    fields, files = _split(form, AUDIO)
    if len(files) != 1:
        raise _missing("file")
    parsed = TranscriptionRequest(
        **_shared(fields), stream=_flag(fields, "stream"), response_format=fields.get("response_format")
    )
    audio = files[0].data
    if audio[:64].removeprefix(requests.BOM).lstrip().startswith(_PLAYLISTS):
        raise BadRequestError("The file is a playlist, not audio.", param="file", code="invalid_value")
    stated = length_ms(audio)
    return MediaFacts(
        parsed,
        bool(parsed.stream),
        audio_ms=likely_ms(len(audio)) if stated is None else stated,
        is_length_estimated=stated is None,
        most_audio_ms=most_ms(audio),
        text_bytes=len(fields.get("prompt", "").encode()),
    )


def picture_facts(form: Sequence[FormPart]) -> MediaFacts:
    """Of an edit or a variation. Raises BadRequestError."""
    fields, files = _split(form, (*IMAGES, "mask"))
    if not any(each.name in IMAGES for each in files):
        raise _missing("image")
    n = _number(fields, "n")
    _check_count(n)
    parsed = ImageRequest(**_shared(fields), prompt=fields.get("prompt", ""), n=n, stream=_flag(fields, "stream"))
    return MediaFacts(
        parsed,
        bool(parsed.stream),
        images=n or 1,
        text_bytes=len(parsed.prompt.encode("utf-8", "surrogatepass")),
        pictures=len(files),
    )


def check_urls(members: Mapping[str, msgspec.Raw], is_allowed: Callable[[str], bool]) -> None:
    """Raises BadRequestError for a URL that an engine may not fetch."""
    for name, raw in members.items():
        if name.lower() not in _TEXTS:
            _check_texts(name, requests.decode_value(raw), is_allowed)


def check_form_urls(form: Iterable[FormPart], is_allowed: Callable[[str], bool]) -> None:
    """The same of a form's fields, whose text may be JSON."""
    for part in form:
        if part.filename is None and part.name.lower() not in _TEXTS:
            _check_texts(part.name, part.text, is_allowed)
            if (value := _json_of(part.data)) is not None:
                _check_texts(part.name, value, is_allowed)


def _decoded(body: bytes, kind: type[Any]) -> tuple[Any, dict[str, msgspec.Raw]]:
    body = body.removeprefix(requests.BOM)
    return requests.decode(body, kind), requests.members(body)


def _split(form: Sequence[FormPart], file_names: Sequence[str]) -> tuple[dict[str, str], list[FormPart]]:
    """The fields by name, and the files. Raises BadRequestError for a file in a field that is not in
    `file_names`."""
    fields: dict[str, str] = {}
    files: list[FormPart] = []
    for part in form:
        name = part.name[:100]
        if part.filename is None:
            if part.name in file_names:
                raise BadRequestError(f"'{name}' must be a file.", param=name, code="invalid_type")
            fields[part.name] = part.text
        elif part.name in file_names:
            if not part.data:
                raise BadRequestError(f"The file '{name}' is empty.", param=name, code="invalid_value")
            files.append(part)
        else:
            raise BadRequestError(f"Unknown file: '{name}'.", param=name, code="unknown_parameter")
    return fields, files


def _shared(fields: Mapping[str, str]) -> dict[str, Any]:
    if not fields.get("model"):
        raise _missing("model")
    return {name: fields.get(name) for name in ("model", "user", "safety_identifier")}


def _flag(fields: Mapping[str, str], name: str) -> bool | None:
    """As pydantic reads a form's flag."""
    if (text := fields.get(name)) is None or not text:
        return None
    word = text.strip().lower()
    if word in ("true", "1", "on", "yes", "t", "y"):
        return True
    if word in ("false", "0", "off", "no", "f", "n"):
        return False
    raise BadRequestError(f"Invalid type for '{name}': expected a boolean.", param=name, code="invalid_type")


def _number(fields: Mapping[str, str], name: str) -> int | None:
    if (text := fields.get(name)) is None or not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise BadRequestError(f"Invalid type for '{name}': expected an integer.", param=name, code="invalid_type")
    return int(text)


def _check_count(n: int | None) -> None:
    if n is not None and not 1 <= n <= MAX_IMAGES:
        side, edge = ("below minimum", ">= 1") if n < 1 else ("above maximum", f"<= {MAX_IMAGES}")
        code = "integer_below_min_value" if n < 1 else "integer_above_max_value"
        raise BadRequestError(f"Invalid 'n': integer {side} value. Expected a value {edge}.", param="n", code=code)


def _check_texts(name: str, value: object, is_allowed: Callable[[str], bool]) -> None:
    """Every string in a JSON value, at any depth, without recursion: a client chooses the depth."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            if _URL.match(each) and not is_allowed(each.strip()):
                raise BadRequestError(
                    "Media must be sent within the request. URLs are fetched only from the hosts that this platform "
                    "allows.",
                    param=name[:100],
                    code="media_url_not_allowed",
                )
        elif isinstance(each, list):
            waiting += each
        elif isinstance(each, dict):
            waiting += each.values()


def _json_of(text: bytes) -> object:
    """None: it is not JSON."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None


def _missing(name: str) -> BadRequestError:
    return BadRequestError(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
