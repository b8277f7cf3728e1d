"""One request leads, equal ones wait for its answer."""

import asyncio

import pytest

from quarterdeck.inference.cache.entry import Entry
from quarterdeck.inference.cache.single_flight import Flight, Flights

ENTRY = Entry(0.0, "m", b"x")


async def followers(flight: Flight, count: int = 3) -> "list[asyncio.Task[Entry | None]]":
    tasks = [asyncio.create_task(flight.wait(60)) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_all_who_wait_are_given_the_leaders_answer() -> None:
    flights = Flights()
    flight = flights.begin("k")
    assert flights.get("k") is flight
    waiting = await followers(flight)
    flight.end(ENTRY)
    assert await asyncio.gather(*waiting) == [ENTRY] * 3
    assert len(flights) == 0


async def test_a_leader_that_fails_sends_them_on_their_way() -> None:
    flights = Flights()
    flight = flights.begin("k")
    waiting = await followers(flight)
    flight.end(None)
    flight.end(ENTRY)
    assert await asyncio.gather(*waiting) == [None] * 3
    assert flights.get("k") is None


async def test_who_stops_waiting_stops_nobody_else() -> None:
    flight = Flights().begin("k")
    first, *others = await followers(flight)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    flight.end(ENTRY)
    assert await asyncio.gather(*others) == [ENTRY] * 2


async def test_waiting_is_bounded() -> None:
    flight = Flights().begin("k")
    assert await flight.wait(0) is None
    flight.end(ENTRY)


async def test_the_end_of_an_old_flight_leaves_the_new_one() -> None:
    flights = Flights()
    old = flights.begin("k")
    new = flights.begin("k")
    old.end(None)
    assert flights.get("k") is new
