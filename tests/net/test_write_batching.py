"""Writes of one turn leave together, in their order, and never after an end."""

import asyncio
from typing import cast

import pytest

from quarterdeck.net.write_batching import BatchedTransport, WriteBatches


class Wire:
    """A transport that notes what happens to it."""

    def __init__(self, name: str, told: list[str]) -> None:
        self._name, self._told, self._closing = name, told, False

    def get_extra_info(self, name: str) -> object:
        return f"{self._name}'s {name}"

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._told.append(f"{self._name} pauses")

    def resume_reading(self) -> None:
        self._told.append(f"{self._name} resumes")

    def write(self, data: bytes) -> None:
        self._told.append(f"{self._name} {data.decode()[:20]}")

    def close(self) -> None:
        self._closing = True
        self._told.append(f"{self._name} closes")

    def abort(self) -> None:
        self._closing = True
        self._told.append(f"{self._name} aborts")


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
async def writes() -> WriteBatches:
    """In a busy hour: two have just sent something."""
    subject = WriteBatches()
    for name in ("one", "another"):
        made(subject, name, [])[0].write(b".")
    await asyncio.sleep(0)
    return subject


def made(writes: WriteBatches, name: str, told: list[str]) -> tuple[BatchedTransport, Wire]:
    wire = Wire(name, told)
    return writes.wrap(cast(asyncio.Transport, wire)), wire


async def test_the_pieces_of_a_turn_are_one_write_for_each_in_the_order_of_their_first(
    writes: WriteBatches, told: list[str]
) -> None:
    (a, _), (b, _) = made(writes, "a", told), made(writes, "b", told)
    a.write(b"1")
    b.write(b"2")
    a.write(b"3")
    assert told == []
    await asyncio.sleep(0)
    assert told == ["a 13", "b 2"]
    await asyncio.sleep(0)
    assert told == ["a 13", "b 2"]
    b.write(b"4")
    await asyncio.sleep(0)
    assert told == ["a 13", "b 2", "b 4"]


async def test_where_turns_have_only_one_it_is_sent_at_once(told: list[str]) -> None:
    writes = WriteBatches()
    (a, _), (b, _) = made(writes, "a", told), made(writes, "b", told)
    for _ in range(3):
        a.write(b"1")
        assert told.pop() == "a 1"
        await asyncio.sleep(0)
    a.write(b"2")
    b.write(b"3")
    a.write(b"4")
    assert told == ["a 2"]
    await asyncio.sleep(0)
    assert told == ["a 2", "b 3", "a 4"]
    a.write(b"5")  # from here on it is worth waiting
    assert told == ["a 2", "b 3", "a 4"]
    await asyncio.sleep(0)
    a.write(b"6")  # and no longer
    assert told == ["a 2", "b 3", "a 4", "a 5", "a 6"]


async def test_much_of_one_does_not_wait(writes: WriteBatches, told: list[str]) -> None:
    a, _ = made(writes, "a", told)
    a.write(b"x" * BatchedTransport.MAX_BYTES)
    assert told == []
    a.write(b"y")
    assert told == ["a " + "x" * 20]
    a.write(b"z")
    await asyncio.sleep(0)
    assert told == ["a " + "x" * 20, "a z"]


async def test_a_close_comes_after_what_was_written(writes: WriteBatches, told: list[str]) -> None:
    a, _ = made(writes, "a", told)
    a.write(b"last words")
    a.close()
    await asyncio.sleep(0)
    assert told == ["a last words", "a closes"]


async def test_an_abort_drops_it(writes: WriteBatches, told: list[str]) -> None:
    a, _ = made(writes, "a", told)
    a.write(b"never said")
    a.abort()
    await asyncio.sleep(0)
    assert told == ["a aborts"]


async def test_a_transport_that_closed_meanwhile_is_not_written_to(writes: WriteBatches, told: list[str]) -> None:
    (a, wire), (b, _) = made(writes, "a", told), made(writes, "b", told)
    a.write(b"too late")
    b.write(b"in time")
    wire.close()
    await asyncio.sleep(0)
    assert told == ["a closes", "b in time"]


async def test_all_else_is_the_transports_own(writes: WriteBatches, told: list[str]) -> None:
    a, _ = made(writes, "a", told)
    a.pause_reading()
    a.resume_reading()
    assert told == ["a pauses", "a resumes"]
    assert a.get_extra_info("peername") == "a's peername"
    assert not a.is_closing()
