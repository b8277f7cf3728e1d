"""A stream is passed to the client, and resumed where it is lost."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.inference.making import CHAT, DONE, a_meter, an_endpoint, delta, event, usage
from tests.inference.reading import Collected, Pieces, read, text_of
from tests.net.upstream import SOON, Peer, Upstream, answering, chunk, response, stream_head, until

from quarterdeck.errors import APIError, EngineError, EngineTimeoutError
from quarterdeck.inference.engine.client import EngineClient
from quarterdeck.inference.engine.error_translation import error_of_event
from quarterdeck.inference.engine.stream import EngineStream
from quarterdeck.inference.metering.meter import Meter
from quarterdeck.inference.streaming.relay import BODY_END_SECONDS, Relay
from quarterdeck.inference.streaming.resume import LostStream, ResumedStream
from quarterdeck.net.http_client import HttpClient
from quarterdeck.protocol import sse
from quarterdeck.protocol.usage import Usage
from quarterdeck.settings.live import Live

ERROR = event({"error": {"message": "boom", "code": 500}})
ROLE = event({"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
GONE = EngineError("gone")


class EngineSays:
    """An engine's stream that has these pieces, then ends or fails. A listener is called twice a turn."""

    def __init__(self, *pieces: bytes, failure: APIError | None = None) -> None:
        self.first = pieces[0]
        self.pieces = list(pieces[1:])
        self.failure = failure
        self.closed = 0
        self.listener: Callable[[], None] | None = None

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        return self.take()

    def take(self) -> bytes:
        if self.pieces:
            return self.pieces.pop(0)
        if self.failure is not None:
            raise self.failure
        return b""

    def listen(self, listener: Callable[[], None] | None) -> None:
        self.listener = listener
        asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        for _ in range(2):
            if self.listener is not None:
                self.listener()
        if self.listener is not None:
            asyncio.get_running_loop().call_soon(self._tell)

    def error(self, data: bytes) -> APIError:
        return error_of_event(data)

    is_complete = False

    def close(self) -> None:
        self.closed += 1
        self.listener = None


class Watched:
    """A relay, the streams that resume it, and its outcome."""

    def __init__(
        self,
        first: EngineSays | EngineStream,
        *then: EngineSays | None,
        meter: Meter | None = None,
        shows_usage: bool = False,
        tokens: int = 0,
        repeated: str = "",
        seconds: float = 60.0,
        body_end_seconds: float = BODY_END_SECONDS,
    ) -> None:
        self.then = list(then)
        self.meter = meter or a_meter(CHAT | {"stream": True})
        self.lost: list[LostStream] = []
        self.ends: list[tuple[str, APIError | None]] = []
        self._resumed = (tokens, repeated)
        self.relay = Relay(
            first,  # type: ignore[arg-type]
            self.meter,
            shows_usage=shows_usage,
            deadline=asyncio.get_running_loop().time() + seconds,
            on_end=lambda status, error: self.ends.append((status, error)),
            resume=self._resume,
            body_end_seconds=body_end_seconds,
        )

    async def _resume(self, lost: LostStream) -> ResumedStream | None:
        self.lost.append(lost)
        stream = self.then.pop(0) if self.then else None
        return ResumedStream(stream, *self._resumed) if stream is not None else None  # type: ignore[arg-type]

    async def read(self, capacity: int = 2) -> bytes:
        said = await read(self.relay, capacity)
        await asyncio.sleep(0)  # the rest of the stream is announced
        await self.relay.aclose()
        return said


LOST: dict[str, Callable[[], EngineSays]] = {
    "it breaks off": lambda: EngineSays(ROLE + delta("Hello "), failure=GONE),
    "it falls silent": lambda: EngineSays(ROLE + delta("Hello "), failure=EngineTimeoutError("silent")),
    "it ends": lambda: EngineSays(ROLE, delta("Hello ")),
    "it says that it is done": lambda: EngineSays(ROLE + delta("Hello ") + DONE),
    "it says so with a usage": lambda: EngineSays(ROLE + delta("Hello "), usage(7, 1) + DONE),
    "it sends an error": lambda: EngineSays(ROLE + delta("Hello "), ERROR + DONE),
    "it sends an error in the same breath": lambda: EngineSays(ROLE + delta("Hello ") + ERROR + DONE),
    "it sends what is no JSON": lambda: EngineSays(ROLE + delta("Hello ") + b"data: {oops\n\n" + delta("no")),
    "it pings": lambda: EngineSays(b": ping\n\n", ROLE, b": ping\n\n" + delta("Hello "), failure=GONE),
}


@pytest.mark.parametrize("capacity", [1, 2, 99])
@pytest.mark.parametrize("first", LOST.values(), ids=LOST.keys())
async def test_a_stream_that_is_lost_is_gone_on_with(first: Callable[[], EngineSays], capacity: int) -> None:
    second = EngineSays(
        ROLE.replace(b"chatcmpl-1", b"chatcmpl-2"), delta("there", id="x"), delta(finish="stop") + usage(9, 2) + DONE
    )
    lost = first()
    watched = Watched(lost, second, tokens=2)
    said = await watched.read(capacity)
    assert (text_of(said), said.endswith(DONE)) == ("Hello there", True)
    assert said.count(b'"assistant"') == 1
    assert b"chatcmpl-2" not in said
    assert [lost.text for lost in watched.lost] == ["Hello "]
    assert watched.ends == [("ok", None)]
    meter = watched.meter
    assert (meter.usage, meter.finish_reason, meter.resumed) == (Usage(7, 0, 4, 0), "stop", 1)
    assert (lost.closed, second.closed) == (1, 1)


async def test_the_usage_that_is_shown_is_that_of_the_whole_answer() -> None:
    second = EngineSays(delta("there") + delta(finish="stop") + usage(9, 2) + DONE)
    said = await Watched(EngineSays(ROLE + delta("Hello "), failure=GONE), second, tokens=2, shows_usage=True).read()
    (counts,) = [chunk["usage"] for chunk in map(sse.parse, sse.events(said)) if chunk and chunk.get("usage")]
    assert counts == {"prompt_tokens": 7, "total_tokens": 11, "completion_tokens": 4}


async def test_it_may_be_lost_again() -> None:
    watched = Watched(
        EngineSays(ROLE + delta("a"), failure=GONE),
        EngineSays(ROLE + delta("b"), failure=GONE),
        EngineSays(ROLE + delta("c") + delta(finish="length") + DONE),
    )
    said = await watched.read()
    assert (text_of(said), [lost.text for lost in watched.lost]) == ("abc", ["a", "ab"])
    assert (watched.meter.resumed, watched.meter.finish_reason) == (2, "length")


async def test_where_nobody_goes_on_the_caller_is_told() -> None:
    watched = Watched(EngineSays(ROLE + delta("a"), failure=GONE), None)
    said = await watched.read()
    assert said == ROLE + delta("a") + sse.error_event(GONE)
    assert watched.ends == [("error", GONE)]
    assert watched.meter.resumed == 0


@pytest.mark.parametrize(
    "first",
    [
        EngineSays(ROLE + delta("a") + delta(finish="stop"), failure=GONE),
        EngineSays(event({"choices": [{"delta": {"reasoning_content": "hm"}}]}) + delta("a"), failure=GONE),
        EngineSays(event({"choices": [{"delta": {"tool_calls": [{"function": {"name": "f"}}]}}]}), failure=GONE),
        EngineSays(ROLE + delta("a"), failure=EngineTimeoutError("over", code="request_timeout")),
        EngineSays(ROLE + delta("a") + event({"error": {"message": "no", "code": 400}})),
        EngineSays(b": ping\n\n", failure=GONE),
        EngineSays(ROLE + delta("x" * 300_000), failure=GONE),
    ],
    ids=[
        "it had ended",
        "it thought",
        "it called a tool",
        "it took too long",
        "our fault",
        "it never began",
        "too long",
    ],
)
async def test_what_can_not_be_gone_on_with_ends_with_an_error(first: EngineSays) -> None:
    watched = Watched(first, EngineSays(delta("b") + delta(finish="stop") + DONE))
    said = await watched.read()
    assert DONE not in said
    assert b'"error"' in list(sse.events(said))[-1]
    assert (watched.lost, watched.ends[0][0], first.closed >= 1) == ([], "error", True)


async def test_a_caller_who_leaves_in_the_second_stream_stops_the_second_engine() -> None:
    first, second = EngineSays(ROLE + delta("a"), failure=GONE), EngineSays(delta("b"), delta("c"))
    watched = Watched(first, second)
    said = b""
    async with Pieces(watched.relay) as pieces:
        async for piece in pieces:
            said += piece
            if b'"b"' in piece:
                break
    await watched.relay.aclose()
    assert (watched.ends, first.closed, second.closed) == ([("cancelled", None)], 1, 1)
    assert watched.meter.transcript is not None
    assert (watched.meter.usage, watched.meter.transcript.text()) == (None, "ab")


async def test_a_stream_that_takes_too_long_is_not_resumed() -> None:
    watched = Watched(EngineSays(ROLE, delta("a")), EngineSays(delta("b")), seconds=-1.0)
    said = await watched.read()
    assert b"request_timeout" in said
    assert watched.lost == []


@pytest.mark.parametrize("ends", [True, False])
async def test_the_connection_is_kept_where_the_body_ends_after_done(client: HttpClient, ends: bool) -> None:
    is_over = asyncio.Event()

    async def dawdling(peer: Peer) -> None:
        await peer.say(stream_head() + chunk(ROLE + delta(finish="stop") + DONE))
        await is_over.wait()
        if ends:
            await peer.say(chunk(b""))
        else:
            await peer.until_gone()

    engines = EngineClient(client, Live(SOON))
    async with Upstream(answering(dawdling, response())) as engine:
        opened = await engines.open(an_endpoint(url=engine.url), "/v1/chat/completions", b"{}")
        assert opened.stream is not None
        connection = opened.stream._connection
        watched = Watched(opened.stream, body_end_seconds=5.0 if ends else 0.01)
        assert (await watched.read()).endswith(DONE)
        is_over.set()
        await until(lambda: connection not in client._busy)
        assert connection.is_open is ends
        await engines.open(an_endpoint(url=engine.url), "/v1/chat/completions", b"{}")
        assert engine.connections == (1 if ends else 2)
    assert watched.ends == [("ok", None)]


async def test_while_the_engine_talks_its_connection_keeps_the_time(client: HttpClient) -> None:
    async def chatter(peer: Peer) -> None:
        await peer.say(stream_head())
        while True:
            await peer.say(chunk(delta("blah ")))
            await asyncio.sleep(0.01)

    async with Upstream(answering(chatter)) as engine:
        limit = asyncio.get_running_loop().time() + 0.2
        opened = await EngineClient(client, Live(SOON)).open(
            an_endpoint(url=engine.url), "/v1/chat/completions", b"{}", limit=limit
        )
        assert opened.stream is not None
        watched = Watched(opened.stream, seconds=0.2)
        said = await watched.read()
        assert b"blah" in said
        assert b"request_timeout" in said
        assert watched.ends[0][0] == "error"
        await engine.closed.wait()


async def test_an_end_that_came_while_there_was_no_room_is_seen(client: HttpClient) -> None:
    is_full = asyncio.Event()

    async def breaking_off(peer: Peer) -> None:
        await peer.request()
        await peer.say(stream_head() + chunk(ROLE))
        await is_full.wait()
        await peer.say(chunk(delta("a")))

    class Slow(Collected):
        async def room(self) -> None:
            is_full.set()
            await until(lambda: not connection.is_open)
            self.left = self.capacity

    async with Upstream(breaking_off) as engine:
        opened = await EngineClient(client, Live(SOON)).open(an_endpoint(url=engine.url), "/v1/chat/completions", b"{}")
        assert opened.stream is not None
        connection = opened.stream._connection
        watched, sink = Watched(opened.stream), Slow(capacity=2)
        sink.left = 1
        async with asyncio.timeout(5):
            await watched.relay.pump(sink)
    *said, end = sse.events(b"".join(sink.pieces))
    assert (said, b'"error"' in end) == ([ROLE, delta("a")], True)


words = st.lists(st.text(max_size=5), max_size=8)


@given(words, st.data())
def test_wherever_it_is_lost_no_character_is_lost_or_said_twice(said: list[str], data: st.DataObject) -> None:
    """The second engine continues with the same text that the first one would have generated."""
    cut = data.draw(st.integers(0, len(said)))
    before = [ROLE, *map(delta, said[:cut])]
    after = [ROLE, *map(delta, said[cut:]), delta(finish="stop"), usage(20, 5), DONE]
    how = data.draw(st.sampled_from([GONE, None]))

    async def run() -> None:
        watched = Watched(EngineSays(*before, failure=how), EngineSays(*cut_once(data, after)), tokens=cut)
        whole = await watched.read(data.draw(st.sampled_from([1, 2, 99])))
        assert text_of(whole) == "".join(said)
        assert whole.endswith(DONE)
        assert watched.lost[0].text == "".join(said[:cut])
        assert watched.meter.usage == Usage(20 - cut, 0, 5 + cut, 0)

    asyncio.run(run())


def cut_once(data: st.DataObject, events: list[bytes]) -> list[bytes]:
    at = data.draw(st.integers(1, len(events)))
    return [piece for piece in (b"".join(events[:at]), b"".join(events[at:])) if piece]
