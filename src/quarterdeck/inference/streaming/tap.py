"""Looks at a stream on its way: what the record needs of it, and what no client may see.

By byte patterns, so that a token costs a microsecond and a burst of sixteen kilobytes some twelve; only what they find
is parsed. Patterns are searched from behind: what is looked for stands there, and where it is absent CPython skips by
the pattern's length.
"""

import msgspec

from quarterdeck.inference.cache.entry import Collector
from quarterdeck.inference.metering.meter import Meter
from quarterdeck.inference.metering.transcript import Transcript
from quarterdeck.protocol import sse
from quarterdeck.protocol.requests import AnyRequest, Completion, Generation
from quarterdeck.protocol.usage import usage_of

COMPACT_FINISH, SPACED_FINISH = b'"finish_reason":"', b'"finish_reason": "'
"""As compact JSON and Python's default write it; inside a text the quotes would be escaped."""


class StreamTap:
    """Looks at each piece of a stream on its way: usage, finish reason, the end, errors inside a 200.

    `collector` is given all of it that is sound, what the client doesn't see as well.
    """

    __slots__ = (
        "_choices",
        "_collector",
        "_meter",
        "_shows_usage",
        "_transcript",
        "error",
        "is_broken",
        "is_done",
        "is_open",
        "is_unfinished",
    )

    def __init__(self, meter: Meter, *, shows_usage: bool, collector: Collector | None = None) -> None:
        self._meter = meter
        self._collector = collector
        self._shows_usage = shows_usage
        self._choices = _Choices() if choices_of(meter.request) != 1 else None
        self._transcript = meter.transcript = Transcript()
        self.is_open = True
        """Nothing of what follows has come."""
        self.is_done = False
        """`[DONE]` has come, and rightly."""
        self.error: bytes | None = None
        """The data of an error event, if one has come; nothing after it is passed on."""
        self.is_broken = False
        """Something has come that no client can read; it and what follows is not passed on."""
        self.is_unfinished = False
        """`[DONE]` has come before a choice had its finish reason; it is not passed on."""

    def look(self, whole: bytes) -> bytes:
        """Take whole events, return those that the client shall see."""
        if (
            whole.find(b"\n") != len(whole) - 2
            or not whole.startswith(b"data: {")
            or not whole.endswith(b"}\n\n")
            or whole.rfind(b'"error"') >= 0
            or (whole.rfind(b'"usage"') >= 0 and sse.usage_before(whole, len(whole)) >= 0)
            or whole.rfind(COMPACT_FINISH) >= 0
            or whole.rfind(SPACED_FINISH) >= 0
            or self._choices is not None
        ):
            return self._look_closely(whole)
        # One object that says nothing but text: most often a token.
        if self._collector is not None:
            self._collector.add(whole)
        self._transcript.add(whole)
        return whole

    def _look_closely(self, whole: bytes) -> bytes:
        meter, choices = self._meter, self._choices
        if (end := sse.end_of_objects(whole)) >= 0:
            self.is_done = end < len(whole)
            if whole.rfind(b'"error"') >= 0:
                whole = self._until_error(whole)
        else:
            whole = self._sound(whole)
        for pattern in (COMPACT_FINISH, SPACED_FINISH):
            if (finish := whole.rfind(pattern)) >= 0:
                finish += len(pattern)
                reason = whole[finish : whole.find(b'"', finish)].decode("utf-8", "replace")
                meter.finish_reason = reason or meter.finish_reason
                break
        if choices is not None:
            choices.look(whole)
        if self._collector is not None:
            self._collector.add(whole)
        if whole.rfind(b'"usage"') >= 0:
            whole = self._take_usage(whole)
        if self.is_done and (meter.finish_reason is None or (choices is not None and not choices.are_finished())):
            self.is_done, self.is_unfinished = False, True
            whole = whole[: sse.bounds(whole, len(whole) - 3)[0]]
        if not self.is_done or meter.usage is None:  # otherwise nobody will ask for the text
            self._transcript.add(whole)
        self.is_open = not (self.is_done or self.is_broken or self.is_unfinished or self.error is not None)
        return whole

    def begin_again(self) -> None:
        """Another stream goes on with the answer."""
        self.error = None
        self.is_broken = self.is_unfinished = False
        self.is_open = True

    def _sound(self, whole: bytes) -> bytes:
        """The same for what isn't a plain row of objects: comments, lines of other kinds, `[DONE]` in the midst. It is
        read event by event."""
        start = 0
        for event in sse.events(whole):
            if data := sse.data(event):
                if data == b"[DONE]":
                    self.is_done = True
                    return whole[: start + len(event)]
                if (chunk := sse.parse_json(data)) is None:
                    self.is_broken = True
                    return whole[:start]
                if chunk.get("error"):
                    self.error = data
                    return whole[:start]
            start += len(event)
        return whole

    def _until_error(self, whole: bytes) -> bytes:
        """The events before the first that is an error; all of them where none is."""
        start = 0
        for event in sse.events(whole):
            if b'"error"' in event:
                chunk = sse.parse(event)
                if chunk is not None and chunk.get("error"):
                    self.error, self.is_done = sse.data(event), False
                    return whole[:start]
            start += len(event)
        return whole

    def _take_usage(self, whole: bytes) -> bytes:
        """Read the usage, the last one if there are several; an event that has nothing but that is not for a client who
        didn't ask."""
        meter, start, is_read = self._meter, len(whole), False
        while (at := sse.usage_before(whole, start)) >= 0:
            start, end = sse.bounds(whole, at)
            chunk = sse.parse_json(sse.data(whole[start:end]))
            if chunk is None or not chunk.get("usage"):
                continue
            if not is_read and (usage := usage_of(chunk["usage"])) is not None:
                is_read = True
                meter.take_usage(usage)
                if isinstance(chunk.get("id"), str):
                    meter.response_id = chunk["id"]
            if not self._shows_usage:
                if not chunk.get("choices"):
                    whole = whole[:start] + whole[end:]
            elif is_read:
                break
        return whole


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None


class _Choices:
    """Which of several choices have begun and ended. Costs a parse an event, so it is kept for those who ask for more
    than one."""

    __slots__ = ("_begun", "_finished")

    def __init__(self) -> None:
        self._begun: set[int] = set()
        self._finished: set[int] = set()

    def look(self, whole: bytes) -> None:
        for event in sse.events(whole):
            try:
                chunk = msgspec.json.decode(sse.data(event), type=_Chunk)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            for choice in chunk.choices or ():
                self._begun.add(choice.index)
                if choice.finish_reason:
                    self._finished.add(choice.index)

    def are_finished(self) -> bool:
        return self._begun == self._finished


def choices_of(request: AnyRequest) -> int:
    """How many choices an answer to it has."""
    if not isinstance(request, Generation):
        return 1
    prompts = 1
    if isinstance(request, Completion) and isinstance(request.prompt, list):
        # A list of numbers is one prompt, by its tokens; any other is several.
        prompts = 1 if request.prompt and isinstance(request.prompt[0], int) else len(request.prompt)
    return (request.n or 1) * prompts
