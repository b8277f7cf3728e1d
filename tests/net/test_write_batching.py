"""Writes of one turn are sent together, in order, and never after a close."""

import asyncio
from typing import cast

import pytest

from quarterdeck.net.write_batching import BatchedTransport, WriteBatches


class Wire:
    """A transport that records its calls."""

    def __init__(self, name: str, events: list[str]) -> None:
        self._name, self._events, self._closing = name, events, False
        self.unsent = 0

    def get_extra_info(self, name: str) -> object:
        return f"{self._name}'s {name}"

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._events.append(f"{self._name} pauses")

    def resume_reading(self) -> None:
        self._events.append(f"{self._name} resumes")

    def write(self, data: bytes) -> None:
        self._events.append(f"{self._name} {data.decode()[:20]}")

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def close(self) -> None:
        self._closing = True
        self._events.append(f"{self._name} closes")

    def abort(self) -> None:
        self._closing = True
        self._events.append(f"{self._name} aborts")


@pytest.fixture
def events() -> list[str]:
    return []


@pytest.fixture
async def writes() -> WriteBatches:
    """Busy: the last turn had two writes."""
    subject = WriteBatches()
    for name in ("one", "another"):
        made(subject, name, [])[0].write(b".")
    await asyncio.sleep(0)
    return subject


def made(writes: WriteBatches, name: str, events: list[str]) -> tuple[BatchedTransport, Wire]:
    wire = Wire(name, events)
    return writes.wrap(cast(asyncio.Transport, wire)), wire


async def test_the_pieces_of_a_turn_are_one_write_for_each_in_the_order_of_their_first(
    writes: WriteBatches, events: list[str]
) -> None:
    (a, _), (b, _) = made(writes, "a", events), made(writes, "b", events)
    a.write(b"1")
    b.write(b"2")
    a.write(b"3")
    assert events == []
    await asyncio.sleep(0)
    assert events == ["a 13", "b 2"]
    await asyncio.sleep(0)
    assert events == ["a 13", "b 2"]
    b.write(b"4")
    await asyncio.sleep(0)
    assert events == ["a 13", "b 2", "b 4"]


async def test_where_turns_have_only_one_it_is_sent_at_once(events: list[str]) -> None:
    writes = WriteBatches()
    (a, _), (b, _) = made(writes, "a", events), made(writes, "b", events)
    for _ in range(3):
        a.write(b"1")
        assert events.pop() == "a 1"
        await asyncio.sleep(0)
    a.write(b"2")
    b.write(b"3")
    a.write(b"4")
    assert events == ["a 2"]
    await asyncio.sleep(0)
    assert events == ["a 2", "b 3", "a 4"]
    a.write(b"5")  # batched from here on
    assert events == ["a 2", "b 3", "a 4"]
    await asyncio.sleep(0)
    a.write(b"6")  # and no longer batched
    assert events == ["a 2", "b 3", "a 4", "a 5", "a 6"]


async def test_much_of_one_does_not_wait(writes: WriteBatches, events: list[str]) -> None:
    a, _ = made(writes, "a", events)
    a.write(b"x" * BatchedTransport.MAX_BYTES)
    assert events == []
    a.write(b"y")
    assert events == ["a " + "x" * 20]
    a.write(b"z")
    await asyncio.sleep(0)
    assert events == ["a " + "x" * 20, "a z"]


async def test_a_close_comes_after_what_was_written(writes: WriteBatches, events: list[str]) -> None:
    a, _ = made(writes, "a", events)
    a.write(b"last words")
    a.close()
    await asyncio.sleep(0)
    assert events == ["a last words", "a closes"]


async def test_an_abort_drops_it(writes: WriteBatches, events: list[str]) -> None:
    a, _ = made(writes, "a", events)
    a.write(b"never said")
    a.abort()
    await asyncio.sleep(0)
    assert events == ["a aborts"]


async def test_a_transport_that_closed_meanwhile_is_not_written_to(writes: WriteBatches, events: list[str]) -> None:
    (a, wire), (b, _) = made(writes, "a", events), made(writes, "b", events)
    a.write(b"too late")
    b.write(b"in time")
    wire.close()
    await asyncio.sleep(0)
    assert events == ["a closes", "b in time"]


async def test_all_else_is_the_transports_own(writes: WriteBatches, events: list[str]) -> None:
    a, _ = made(writes, "a", events)
    a.pause_reading()
    a.resume_reading()
    assert events == ["a pauses", "a resumes"]
    assert a.get_extra_info("peername") == "a's peername"
    assert not a.is_closing()


async def test_a_close_reports_bytes_that_the_peer_has_not_taken(writes: WriteBatches, events: list[str]) -> None:
    for unsent in (0, 1):
        subject, wire = made(writes, "a", events)
        wire.unsent = unsent
        subject.on_unsent = lambda: events.append("unsent")
        subject.close()
    assert events == ["a closes", "a closes", "unsent"]
