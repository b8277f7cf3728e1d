"""Passes an answer of audio or events to the client, as fast as it reads, and counts what it is billed by.

A failure after the first bytes is raised: the lifecycle ends an event stream with it as an event, and closes the
connection of anything else, so that an incomplete answer never looks complete.
"""

from collections.abc import Callable

import msgspec

from quarterdeck.errors import APIError, EngineError
from quarterdeck.inference.call import Sink
from quarterdeck.inference.media_calls.engine import MediaStream, first_error
from quarterdeck.inference.media_calls.metering import take_report, take_usage
from quarterdeck.inference.metering.meter import Meter
from quarterdeck.protocol import sse
from quarterdeck.protocol.media_answers import TranscriptEvents, read_answer
from quarterdeck.record import Status


class MediaRelay:
    """A `Stream`. `on_end` is called once with the outcome, whether the answer was read to its end or closed.

    `transcript`: turns vLLM's events of a transcription into OpenAI's. None: events stay as they are.
    """

    def __init__(
        self,
        source: MediaStream,
        meter: Meter,
        *,
        on_end: Callable[[Status, APIError | None], None],
        transcript: TranscriptEvents | None = None,
    ) -> None:
        self._source = source
        self._meter = meter
        self._on_end = on_end
        self._transcript = transcript
        self._images = 0
        self._is_over = False

    async def pump(self, sink: Sink) -> None:
        source = self._source
        piece = source.first
        try:
            while piece:
                visible = self._take_events(piece) if source.is_events else piece
                if visible and not sink.put(visible):
                    await sink.room()
                piece = await source.read()
            if self._transcript is not None and not self._transcript.is_complete:
                raise EngineError("The engine ended the stream before it was complete.")
        except APIError as error:
            self._end("error", error)
            raise
        if self._images and self._meter.units is not None:
            self._meter.units = msgspec.structs.replace(self._meter.units, images=self._images)
        self._end("ok", None)

    async def aclose(self) -> None:
        """Close it. Before its end this stops the engine. Idempotent."""
        self._end("cancelled", None)

    def _take_events(self, whole: bytes) -> bytes:
        """What the client sees of these events. Raises APIError for an error among them."""
        if (data := first_error(whole)) is not None:
            raise self._source.error(data)
        for event in sse.events(whole):
            self._count(sse.data(event))
        if self._transcript is None:
            return whole
        visible = self._transcript.convert(whole)
        take_usage(self._meter, self._transcript.usage)
        return visible

    def _count(self, data: bytes) -> None:
        if b'"usage"' not in data and b'"type"' not in data:
            return
        try:
            facts = read_answer(data)
        except ValueError:
            return
        self._images += facts.is_image
        take_report(self._meter, facts.reported)

    def _end(self, status: Status, error: APIError | None) -> None:
        if not self._is_over:
            self._is_over = True
            self._source.close()
            self._on_end(status, error)
