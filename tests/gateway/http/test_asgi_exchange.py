"""An exchange over ASGI's receive and send."""

import asyncio
from collections.abc import Iterator

import pytest

from quarterdeck.gateway.http.asgi_exchange import ABORT, AsgiExchange, abort_of
from quarterdeck.gateway.http.requests_in_flight import RequestInFlight
from quarterdeck.net.asgi import ClientGoneError, Message, Scope


class Server:
    """Gives the messages it was made with, then waits for `gone`."""

    def __init__(self, *messages: Message) -> None:
        self._messages: Iterator[Message] = iter(messages)
        self.sent: list[Message] = []
        self.gone = asyncio.Event()

    async def receive(self) -> Message:
        for message in self._messages:
            return message
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)


def piece(body: bytes, *, more: bool) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def exchange(server: Server, task: "asyncio.Task[None] | None" = None) -> AsgiExchange:
    made = AsgiExchange({}, server.receive, server.send, None)
    made.in_flight = RequestInFlight(task or asyncio.create_task(asyncio.sleep(0)))
    return made


async def test_a_body_comes_in_pieces_without_empty_ones() -> None:
    made = exchange(
        Server(piece(b"a", more=True), piece(b"", more=True), piece(b"b", more=True), piece(b"", more=False))
    )
    assert [await made.next_piece() for _ in range(4)] == [b"a", b"b", b"", b""]
    made.close()


async def test_a_hang_up_within_a_body_is_an_error() -> None:
    server = Server(piece(b"a", more=True))
    server.gone.set()
    made = exchange(server)
    assert await made.next_piece() == b"a"
    with pytest.raises(ClientGoneError):
        await made.next_piece()


@pytest.mark.parametrize("is_read", [True, False], ids=["after its body", "with the rest of its body unread"])
async def test_a_hang_up_cancels_the_caller(is_read: bool) -> None:
    server = Server(piece(b"a", more=True), piece(b"b", more=False))
    task: asyncio.Task[None] = asyncio.create_task(asyncio.sleep(60))
    made = exchange(server, task)
    if is_read:
        assert await made.read(10) == b"ab"
    else:
        made.watch()
    server.gone.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert made.in_flight is not None
    assert made.in_flight.reason == "gone"


async def test_a_piece_is_sent_when_room_is_waited_for_with_a_deadline() -> None:
    server = Server()
    made = exchange(server)
    in_flight = made.in_flight
    assert in_flight is not None
    in_flight.patience = 60
    deadlines: list[float] = []

    async def send(message: Message) -> None:
        deadlines.append(in_flight.deadline)
        server.sent.append(message)

    made = AsgiExchange({}, server.receive, send, None)
    made.in_flight = in_flight
    await made.begin(200, [(b"a", b"b")])
    assert not made.put(b"x")
    await made.room()
    await made.end()
    assert [message.get("body") for message in server.sent] == [None, b"x", b""]
    assert [bool(deadline) for deadline in deadlines] == [False, True, False]
    assert not in_flight.deadline


def test_another_server_has_no_way_to_drop_a_connection() -> None:
    calls: list[str] = []
    ours: Scope = {"extensions": {ABORT: {"call": lambda: calls.append("aborted")}}}
    for scope in (ours, {"extensions": {}}, {"extensions": None}, {}):
        abort_of(scope)()
    assert calls == ["aborted"]
