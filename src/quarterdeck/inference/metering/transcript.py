"""The text of a stream so far. Pieces are kept as received and parsed every 16 KB, which is cheap.

It is needed if the answer is interrupted: to count its tokens, off the hot path, or to resume it on another endpoint.
"""

from typing import Any

import msgspec

from quarterdeck.protocol import sse

FOLD_BYTES = 16 * 1024
MAX_TEXT_CHARACTERS = 256 * 1024
"""Longer texts are dropped; tokens are then estimated from the number of events."""


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: Any = None
    function_call: Any = None
    tool_calls: Any = None


class _Logprobs(msgspec.Struct, gc=False):
    content: list[Any] | None = None
    """Of a chat."""
    tokens: list[Any] | None = None
    """Of a completion."""


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    text: str | None = None
    delta: _Delta | None = None
    message: Any = None
    token_ids: list[Any] | None = None
    logprobs: _Logprobs | None = None


class _Chunk(msgspec.Struct, gc=False):
    """The fields of a chunk that may have text. Decoded for each token; other fields are skipped."""

    choices: list[_Choice] | None = None


_chunks = msgspec.json.Decoder(_Chunk)
_NO_DELTA = _Delta()


class Transcript:
    """The text of one answer, of all its choices."""

    __slots__ = ("_events", "_is_plain", "_listed", "_pieces", "_size", "_text")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._text: str | None = ""
        self._events = 0
        self._listed = 0
        self._is_plain = True

    def add(self, whole: bytes) -> None:
        """Add whole events, as sent to the client."""
        self._pieces.append(whole)
        self._size += len(whole)
        if self._size >= FOLD_BYTES:
            self._fold()

    def add_answer(self, body: bytes) -> None:
        """Add a complete answer that was not streamed."""
        self._append(generated_text(sse.parse_json(body)))

    def text(self) -> str | None:
        """The received text. None: it was too long to keep."""
        self._fold()
        return self._text

    def plain_text(self) -> str | None:
        """The text, if it is all content of one choice. None: it was too long to keep, or there was something else
        (reasoning, a tool call, a refusal, another choice)."""
        self._fold()
        return self._text if self._is_plain else None

    def tokens_listed(self) -> int:
        """Tokens that were received one by one, as ids or with their log-probabilities. They may be ahead of the text:
        an engine holds back as much of it as a stop string is long, and the text of special tokens."""
        self._fold()
        return self._listed

    def tokens_seen(self) -> int:
        """Estimated tokens: the number of events with text. Called often, so it parses nothing."""
        return self._events + sum([piece.count(b"\n\n") for piece in self._pieces])

    def _fold(self) -> None:
        if not self._pieces:
            return
        whole = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        if (texts := self._parse_at_once(whole)) is None:
            texts = self._parse_one_by_one(whole)
        self._events += len(texts)
        self._append("".join(texts))

    def _parse_at_once(self, whole: bytes) -> list[str] | None:
        """Parse all events at once, in a tenth of the time. None: they are not a plain row of objects."""
        if not whole.startswith(b"data: "):
            return None
        end = -len(sse.DONE) if whole.endswith(sse.DONE) else None
        try:
            chunks = _chunks.decode_lines(b"\n".join(whole[6:end].rsplit(b"\n\ndata: ")))  # half of `replace`
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return self._texts(chunks)

    def _parse_one_by_one(self, whole: bytes) -> list[str]:
        texts: list[str] = []
        for event in sse.events(whole):
            try:
                texts += self._texts([_chunks.decode(sse.data(event))])
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                if (chunk := sse.parse(event)) is None:
                    continue
                self._is_plain = False  # an unexpected structure
                if text := generated_text(chunk):
                    texts.append(text)
        return texts

    def _texts(self, chunks: list[_Chunk]) -> list[str]:
        texts: list[str] = []
        for chunk in chunks:
            choices = chunk.choices
            if not choices:
                continue
            if len(choices) == 1:
                choice = choices[0]
                if choice.token_ids or choice.logprobs is not None:
                    self._listed += _listed_in(choice)
                delta = choice.delta or _NO_DELTA
                text = delta.content if choice.text is None else choice.text
                if (
                    choice.index == 0
                    and (delta.content is None or choice.text is None)
                    and not (delta.reasoning_content or delta.reasoning or delta.refusal)
                    and not (delta.tool_calls or delta.function_call or choice.message)
                ):
                    if text:
                        texts.append(text)
                    continue
            if len(choices) > 1:
                self._listed += sum(map(_listed_in, choices))
            self._is_plain = False
            if text := generated_text(msgspec.to_builtins(chunk)):
                texts.append(text)
        return texts

    def _append(self, text: str) -> None:
        if self._text is not None:
            self._text += text
            if len(self._text) > MAX_TEXT_CHARACTERS:
                self._text = None


def _listed_in(choice: _Choice) -> int:
    logprobs = choice.logprobs
    with_logprobs = len(logprobs.content or logprobs.tokens or ()) if logprobs is not None else 0
    return max(len(choice.token_ids or ()), with_logprobs)


def generated_text(answer: dict[str, Any] | None) -> str:
    """The text of an answer or a chunk: content, reasoning, refusal, names and arguments of tool calls."""
    texts: list[str] = []
    for choice in _list(answer, "choices"):
        if isinstance(choice.get("text"), str):
            texts.append(choice["text"])
        message = choice.get("delta") or choice.get("message")
        if not isinstance(message, dict):
            continue
        # Some engines send the reasoning twice, under its old name and its new one.
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        said = (reasoning, message.get("content"), message.get("refusal"))
        texts += [text for text in said if isinstance(text, str)]
        calls = [
            *(call.get(kind) for call in _list(message, "tool_calls") for kind in ("function", "custom")),
            message.get("function_call"),  # OpenAI's first form of a tool call
        ]
        for call in calls:
            if isinstance(call, dict):
                texts += [call[name] for name in ("name", "arguments", "input") if isinstance(call.get(name), str)]
    return "".join(texts)


def _list(holder: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    value = holder.get(name) if holder else None
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
