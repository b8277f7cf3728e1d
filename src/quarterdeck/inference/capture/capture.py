"""Captures the input and output of one request, where the policy says so (`level_of`).

While the request runs it only keeps what is there already: the request's members, the answer's body, or the pieces of
a stream (`assembly`). The `Content` is made when the request has ended; in a thread if it is large.
"""

import hashlib
from typing import Any

import msgspec

from quarterdeck.content import LEVELS, Content, Level, canonical, choices_of, encode, strictest
from quarterdeck.inference.call import Operation
from quarterdeck.inference.capture.assembly import StreamAssembly
from quarterdeck.inference.capture.cutting import cut, cut_choices, size_of
from quarterdeck.inference.request import InferenceRequest
from quarterdeck.inference.streaming.collector import Collects
from quarterdeck.redaction.media import without_media
from quarterdeck.settings.content import ContentConfig

INPUT_MEMBERS = (
    *("messages", "prompt", "suffix", "input", "tools", "functions", "tool_choice", "response_format"),
    *("query", "queries", "documents", "text_1", "text_2"),
)
"""The members of a request that are its input. Parameters are in the record."""
WITHOUT_TEXT = (Operation.EMBEDDINGS, Operation.SCORE, Operation.CLASSIFY)
"""Operations whose answers are numbers, of which nothing is kept."""
CAPTURED = (Operation.CHAT, Operation.COMPLETIONS, *WITHOUT_TEXT)
LARGE_BYTES = 64 * 1024
"""A body that is larger is cut in a thread: parsing one takes milliseconds for each MB."""


def level_of(config: ContentConfig, principal: Level | None, route: Level | None) -> Level:
    """What is captured of a request: the strictest of what its key, team and org (`principal`), its route and models
    say; the platform's `capture` where none of them says anything; never more than `most`."""
    level = strictest((principal, route)) or config.capture
    return min(level, config.most, key=LEVELS.index)


class Capture:
    """What is captured of one request."""

    __slots__ = ("_answer", "_config", "_other", "_request", "_stream", "level")

    def __init__(self, level: Level, config: ContentConfig, request: InferenceRequest) -> None:
        self.level = level
        self._config = config
        self._request = request
        self._answer: bytes | None = None
        self._stream: StreamAssembly | None = None
        self._other: Collects | None = None

    @property
    def is_large(self) -> bool:
        """Whether `encoded` takes so long that it belongs into a thread."""
        return len(self._request.body) > LARGE_BYTES or len(self._answer or b"") > LARGE_BYTES

    def take(self, body: bytes) -> None:
        """Keep a whole answer."""
        if self._request.operation not in WITHOUT_TEXT:
            self._answer = body

    def collect(self, other: Collects | None) -> Collects:
        """A collector of a stream's events. `other` receives them as well."""
        self._stream, self._other = StreamAssembly(self._config.max_output_kb * 1024), other
        return self

    def add(self, piece: bytes, /) -> None:
        if self._other is not None:
            self._other.add(piece)
        if self._stream is not None:
            self._stream.add(piece)

    def take_stream(self, body: bytes) -> None:
        """Keep the events of a stream that was cached."""
        self.collect(None).add(body)

    def encoded(self) -> bytes:
        """The content as it travels to the worker."""
        return encode(self.content())

    def content(self) -> Content:
        """The content: within its caps where it is whole, hashes of it with level `hashed`."""
        if self.level == "hashed":
            return self._hashed()
        content = Content(level=self.level)
        self._fill_input(content)
        self._fill_output(content)
        return content

    def _fill_input(self, content: Content) -> None:
        members = {name: raw for name in INPUT_MEMBERS if (raw := self._request.members.get(name)) is not None}
        whole = msgspec.json.encode(members)
        content.input_bytes = len(whole)
        most = self._config.max_input_kb * 1024
        if len(whole) > most:
            found, content.is_input_cut = cut(without_media(msgspec.json.decode(whole)), most)
            whole = msgspec.json.encode(found)
        content.input = whole

    def _fill_output(self, content: Content) -> None:
        most = self._config.max_output_kb * 1024
        if self._stream is not None:
            choices = self._stream.choices()
            content.is_output_cut = self._stream.is_cut
        elif self._answer is None:
            return
        elif len(self._answer) <= most:  # the worker finds its choices
            content.output, content.output_bytes = self._answer, len(self._answer)
            return
        else:
            try:
                choices = choices_of(msgspec.json.decode(self._answer))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                content.output_bytes, content.is_output_cut = len(self._answer), True
                return
        content.output_bytes = self._stream.total if self._stream is not None else size_of(choices)
        if isinstance(choices, list):
            choices, is_cut = cut_choices(without_media(choices), most)
            content.is_output_cut |= is_cut
        content.output = msgspec.json.encode(choices)

    def _hashed(self) -> Content:
        content = Content(level="hashed")
        members = {name: raw for name in INPUT_MEMBERS if (raw := self._request.members.get(name)) is not None}
        whole = msgspec.json.encode(members)
        content.input_bytes, content.input_hash = len(whole), _hash(msgspec.json.decode(whole))
        output: Any = None
        if self._stream is not None:
            output = self._stream.choices()
            content.is_output_cut = self._stream.is_cut
        elif self._answer is not None:
            try:
                output = choices_of(msgspec.json.decode(self._answer))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                output = None
        if output is not None:
            content.output_bytes, content.output_hash = size_of(output), _hash(output)
        return content


def _hash(value: Any) -> str:
    return hashlib.sha256(canonical(value)).hexdigest()
