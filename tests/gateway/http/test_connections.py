"""Connections of clients are bounded: waiting ones make room, and where none waits a new one is refused."""

import asyncio
import logging
import socket

import pytest
from tests.gateway.http.connections import REQUEST, serving
from tests.net.upstream import until

from quarterdeck.gateway.http.connections import GRACE_SECONDS, MAX_LINGERING, RESCAN_SECONDS, Connections
from quarterdeck.inference.call import Head, Reply


class Fake:
    def __init__(self, since: tuple[bool, float] | None) -> None:
        self.waiting_since = since
        self.has_unread = False
        self.was_evicted = False

    def evict(self) -> None:
        self.was_evicted = True


class Clock:
    def __init__(self) -> None:
        self.now = 10.0

    def __call__(self) -> float:
        return self.now


def test_silent_connections_make_room_first_and_then_those_idle_for_longest() -> None:
    busy, idle, idle_for_long = Fake(None), Fake((True, 9.0)), Fake((True, 5.0))
    silent, silent_for_long = Fake((False, 8.0)), Fake((False, 7.0))
    clock = Clock()
    connections = Connections(5, clock=clock)
    for each in (busy, idle, idle_for_long, silent, silent_for_long):
        assert connections.admit(each)
    for victim in (silent_for_long, silent, idle_for_long, idle):
        assert connections.admit(Fake(None))
        assert victim.was_evicted and len(connections) == 5
        clock.now += 2 * RESCAN_SECONDS
    assert not connections.admit(Fake(None))
    assert not busy.was_evicted
    assert (connections.evicted, connections.refused) == (4, 1)


def test_one_that_has_begun_a_request_since_the_search_stays() -> None:
    connections = Connections(2, clock=Clock())
    first, second, third = Fake((False, 1.0)), Fake((False, 2.0)), Fake((False, 3.0))
    for each in (first, second, third):
        connections.admit(each)
    assert first.was_evicted
    fourth = Fake(None)
    second.waiting_since = None
    assert connections.admit(fourth) and third.was_evicted and not second.was_evicted


def test_one_that_was_just_made_is_not_closed_for_another() -> None:
    clock = Clock()
    connections = Connections(1, clock=clock)
    assert connections.admit(Fake((False, clock.now)))
    assert not connections.admit(Fake(None))
    clock.now += 2 * GRACE_SECONDS
    assert connections.admit(Fake(None))


def test_one_line_is_logged_per_period(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    connections = Connections(1, clock=clock, log_seconds=10)
    connections.admit(Fake(None))
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            connections.admit(Fake(None))
        assert len(caplog.records) == 1
        clock.now += 10
        connections.admit(Fake(None))
    assert "refused 100 new ones" in caplog.messages[1]


def test_one_whose_request_has_arrived_but_was_not_read_stays() -> None:
    clock = Clock()
    connections = Connections(2, clock=clock)
    arrived, silent = Fake((False, 1.0)), Fake((False, 2.0))
    arrived.has_unread = True
    for each in (arrived, silent, Fake(None)):
        assert connections.admit(each)
    assert silent.was_evicted and not arrived.was_evicted


async def test_a_silent_connection_is_closed_for_a_new_one(way: str) -> None:
    async with serving(way, connections=Connections(2)) as bench:
        silent, other = await bench.connect(), await bench.connect()
        await asyncio.sleep(2 * GRACE_SECONDS)
        new = await bench.connect()
        assert await silent.code() == (503, "overloaded"), "its client may be about to send a request"
        assert await silent.is_closed()
        for peer in (other, new):
            await peer.send(REQUEST)
            assert (await peer.answer())[0] == 200


async def test_a_connection_too_many_is_refused_with_an_error_of_ours(way: str) -> None:
    connections, gate = Connections(2), asyncio.Event()

    async def held(head: Head, body: bytes) -> Reply:
        await gate.wait()
        return Reply(200, (), b"{}")

    async with serving(way, connections=connections) as bench:
        bench.pipeline.answer = held
        busy = [await bench.connect() for _ in range(2)]
        for peer in busy:
            await peer.send(REQUEST)
        await until(lambda: len(bench.pipeline.calls) == 2)
        refused = await bench.connect()
        await refused.send(REQUEST)
        assert await refused.code() == (503, "overloaded")
        assert await refused.is_closed()
        gate.set()
        for peer in busy:
            assert (await peer.answer())[0] == 200
        await until(lambda: connections.lingering == 0)


async def test_of_a_burst_of_clients_each_reads_why_it_is_refused(way: str) -> None:
    gate = asyncio.Event()

    async def held(head: Head, body: bytes) -> Reply:
        await gate.wait()
        return Reply(200, (), b"{}")

    async with serving(way, connections=Connections(1)) as bench:
        bench.pipeline.answer = held
        busy = await bench.connect()
        await busy.send(REQUEST)
        await until(lambda: len(bench.pipeline.calls) == 1)
        sockets = []
        for _ in range(4 * MAX_LINGERING):
            sockets.append(socket.create_connection(("127.0.0.1", bench.port)))
            sockets[-1].sendall(REQUEST)  # before the gateway accepts
        for each in sockets:
            peer = await bench.connect(sock=each)
            assert await peer.code() == (503, "overloaded")
            assert await peer.reader.read() == b"", "closed, not reset"
        gate.set()
        assert (await busy.answer())[0] == 200
