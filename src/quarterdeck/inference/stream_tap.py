"""Looks at a stream on its way: what the record needs of it, and what no client may see.

By byte patterns, so that a token costs a microsecond; only what they find is parsed.
"""

from quarterdeck.inference.metering import Meter
from quarterdeck.inference.transcript import Transcript
from quarterdeck.protocol import sse
from quarterdeck.protocol.usage import usage_of

FINISH = (b'"finish_reason":"', b'"finish_reason": "')
"""As compact JSON and Python's default write it; inside a text the quotes would be escaped."""


class StreamTap:
    """Looks at each piece of a stream on its way: usage, finish reason, the end, errors inside a 200."""

    __slots__ = ("_meter", "_shows_usage", "error", "is_broken", "is_done")

    def __init__(self, meter: Meter, *, shows_usage: bool) -> None:
        self._meter = meter
        self._shows_usage = shows_usage
        meter.transcript = Transcript()
        self.is_done = False
        """`[DONE]` has come."""
        self.error: bytes | None = None
        """The data of an error event, if one has come; nothing after it is passed on."""
        self.is_broken = False
        """Something has come that no client can read; it and what follows is not passed on."""

    def look(self, whole: bytes) -> bytes:
        """Take whole events, return those that the client shall see."""
        meter = self._meter
        if sse.may_hold_error(whole):
            whole = self._until_error(whole)
        if (end := sse.end_of_done(whole)) >= 0:
            self.is_done = True
            whole = whole[:end]
        if sse.may_hold_garbage(whole) and (garbage := sse.garbage_at(whole)) >= 0:
            self.is_broken, self.is_done = True, False
            whole = whole[:garbage]
        for pattern in FINISH:
            if (finish := whole.rfind(pattern)) >= 0:
                finish += len(pattern)
                meter.finish_reason = whole[finish : whole.find(b'"', finish)].decode("utf-8", "replace")
        if sse.usage_before(whole, len(whole)) >= 0:
            whole = self._take_usage(whole)
        assert meter.transcript is not None  # noqa: S101  # set in __init__
        meter.transcript.add(whole)
        return whole

    def _until_error(self, whole: bytes) -> bytes:
        """The events before the first that is an error; all of them where none is."""
        start = 0
        for event in sse.events(whole):
            if b'"error"' in event:
                chunk = sse.parse(event)
                if chunk is not None and chunk.get("error"):
                    self.error = sse.data(event)
                    return whole[:start]
            start += len(event)
        return whole

    def _take_usage(self, whole: bytes) -> bytes:
        """Read the usage, the last one if there are several; an event that has nothing but that is not for a client who
        didn't ask."""
        meter, end, is_read = self._meter, len(whole), False
        while (at := sse.usage_before(whole, end)) >= 0:
            end, after = sse.bounds(whole, at)
            chunk = sse.parse(whole[end:after])
            if chunk is None or not chunk.get("usage"):
                continue
            choices = chunk.get("choices")
            if not is_read:
                is_read = True
                meter.take_usage(usage_of(chunk["usage"]))
                if isinstance(chunk.get("id"), str):
                    meter.response_id = chunk["id"]
            if not choices and not self._shows_usage:
                whole = whole[:end] + whole[after:]
        return whole
