"""Requests in flight are counted, bounded, timed and drained."""

import asyncio

import pytest

from quarterdeck.errors import RateLimitError, RequestTimeoutError, ServiceUnavailableError
from quarterdeck.gateway.http.requests_in_flight import MIB, RequestInFlight, RequestsInFlight
from quarterdeck.settings.config import GatewayConfig


async def wait_for_an_answer(requests_in_flight: RequestsInFlight) -> RequestInFlight:
    task = asyncio.current_task()
    assert task is not None
    in_flight = requests_in_flight.enter(task)
    try:
        await asyncio.Event().wait()
    finally:
        requests_in_flight.leave(in_flight)
    return in_flight


async def test_empty_returns_each_time_the_last_request_ends() -> None:
    requests_in_flight = RequestsInFlight()
    await requests_in_flight.empty()
    for so_many in (1, 3):
        waiting = [asyncio.create_task(wait_for_an_answer(requests_in_flight)) for _ in range(so_many)]
        await asyncio.sleep(0)
        assert len(requests_in_flight) == so_many
        empty = asyncio.create_task(requests_in_flight.empty())
        await asyncio.sleep(0)
        for task in waiting:
            assert not empty.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await empty
        assert len(requests_in_flight) == 0


async def test_a_settled_caller_may_hang_up_and_a_stopped_one_is_stopped_once() -> None:
    requests_in_flight = RequestsInFlight()
    task = asyncio.create_task(wait_for_an_answer(requests_in_flight))
    await asyncio.sleep(0)
    (in_flight,) = requests_in_flight
    in_flight.is_only_writing = True
    in_flight.hang_up()
    assert (in_flight.reason, task.cancelling()) == (None, 0)
    requests_in_flight.stop_all()
    requests_in_flight.stop_all()
    assert (in_flight.reason, task.cancelling()) == ("shutting_down", 1)
    assert in_flight.was_stopped()
    assert task.cancelling() == 0
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_deadline_that_passes_stops_its_request() -> None:
    requests_in_flight = RequestsInFlight(sweep_seconds=0.001)
    task = asyncio.create_task(wait_for_an_answer(requests_in_flight))
    await asyncio.sleep(0)
    (in_flight,) = requests_in_flight
    in_flight.deadline = asyncio.get_running_loop().time()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert in_flight.reason == "slow"
    assert isinstance(in_flight.error(), RequestTimeoutError)


async def test_the_error_of_a_stopped_request_says_why() -> None:
    task = asyncio.create_task(asyncio.Event().wait())
    gone, last = RequestInFlight(task), RequestInFlight(task)
    gone.hang_up()
    last.stop("shutting_down")
    error = last.error()
    assert gone.error() is None
    assert isinstance(error, ServiceUnavailableError)
    assert (error.code, error.headers) == ("shutting_down", {"connection": "close"})


async def test_more_than_the_limit_are_refused() -> None:
    requests_in_flight = RequestsInFlight()
    tasks = [asyncio.create_task(wait_for_an_answer(requests_in_flight)) for _ in range(2)]
    await asyncio.sleep(0)
    first, second = requests_in_flight
    bounds = GatewayConfig(max_in_flight=1)
    requests_in_flight.take_place(first, "key_1", None, bounds)
    with pytest.raises(ServiceUnavailableError) as refused:
        requests_in_flight.take_place(second, "key_2", None, bounds)
    assert refused.value.code == "overloaded"
    requests_in_flight.take_place(second, "key_2", None, bounds, counts=False)
    requests_in_flight.stop_all()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert requests_in_flight.admitted == 0


async def test_the_shutdown_delay_goes_on_while_a_load_balancer_still_sends_requests() -> None:
    requests_in_flight, hurry = RequestsInFlight(), asyncio.Event()
    serving = asyncio.create_task(requests_in_flight.serve_on(0.2, 3600, hurry))
    loop = asyncio.get_running_loop()
    began = loop.time()
    while loop.time() < began + 1:
        in_flight = requests_in_flight.enter(asyncio.current_task())
        requests_in_flight.take_place(in_flight, "key", None, GatewayConfig())
        requests_in_flight.leave(in_flight)
        await asyncio.sleep(0)
    assert not serving.done()
    await serving


async def test_the_shutdown_delay_starts_again_while_an_earlier_request_is_in_flight() -> None:
    requests_in_flight, hurry = RequestsInFlight(), asyncio.Event()
    task = asyncio.create_task(wait_for_an_answer(requests_in_flight))
    await asyncio.sleep(0)
    serving = asyncio.create_task(requests_in_flight.serve_on(0.01, 3600, hurry))
    await asyncio.sleep(0)
    requests_in_flight.take_place(RequestInFlight(task), "key", None, GatewayConfig())  # still admitted
    await asyncio.wait({serving}, timeout=0.1)
    assert requests_in_flight.is_leaving
    assert not serving.done()
    requests_in_flight.stop_all()
    await serving


async def test_the_shutdown_delay_ends_at_its_bound_or_by_a_second_signal() -> None:
    requests_in_flight, hurry = RequestsInFlight(), asyncio.Event()
    task = asyncio.create_task(wait_for_an_answer(requests_in_flight))
    await asyncio.sleep(0)
    await requests_in_flight.serve_on(0.01, 0.02, hurry)
    serving = asyncio.create_task(requests_in_flight.serve_on(3600, 3600, hurry))
    await asyncio.sleep(0)
    hurry.set()
    await serving
    assert not task.done()
    requests_in_flight.stop_all()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_drain_waits_then_cancels_and_admits_nothing() -> None:
    requests_in_flight, hurry = RequestsInFlight(), asyncio.Event()
    task = asyncio.create_task(wait_for_an_answer(requests_in_flight))
    await asyncio.sleep(0)
    draining = asyncio.create_task(requests_in_flight.drain(60, hurry))
    await asyncio.sleep(0)
    with pytest.raises(ServiceUnavailableError):
        requests_in_flight.take_place(RequestInFlight(task), "key", None, GatewayConfig())
    assert not task.cancelling()
    hurry.set()
    await draining
    assert task.done()
    await RequestsInFlight().drain(60, asyncio.Event())  # nothing is in flight


async def test_a_request_that_does_not_end_does_not_hold_up_a_drain_for_ever() -> None:
    requests_in_flight, may_end = RequestsInFlight(), asyncio.Event()

    async def ignore_the_cancel() -> None:
        task = asyncio.current_task()
        assert task is not None
        in_flight = requests_in_flight.enter(task)
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                continue
        requests_in_flight.leave(in_flight)

    task = asyncio.create_task(ignore_the_cancel())
    await asyncio.sleep(0)
    await requests_in_flight.drain(0, asyncio.Event(), cancel_seconds=0.01)
    assert len(requests_in_flight) == 1
    may_end.set()
    await task


def in_use(requests_in_flight: RequestsInFlight) -> bool:
    return any(use.requests or use.bytes for use in requests_in_flight._uses.values())


async def entered(requests_in_flight: RequestsInFlight, count: int) -> list[RequestInFlight]:
    task = asyncio.current_task()
    assert task is not None
    return [requests_in_flight.enter(task) for _ in range(count)]


async def test_a_key_has_a_share_of_the_requests_in_flight() -> None:
    requests_in_flight, bounds = RequestsInFlight(), GatewayConfig(max_in_flight_per_key=2)
    first, second, third, other = await entered(requests_in_flight, 4)
    requests_in_flight.take_place(first, "greedy", None, bounds)
    requests_in_flight.take_place(second, "greedy", None, bounds)
    with pytest.raises(RateLimitError) as refused:
        requests_in_flight.take_place(third, "greedy", None, bounds)
    assert (refused.value.status, refused.value.retry_after) == (429, 1)
    requests_in_flight.take_place(other, "modest", None, bounds)
    requests_in_flight.leave(first)
    requests_in_flight.take_place(third, "greedy", None, bounds)
    for each in (second, third, other):
        requests_in_flight.leave(each)
    assert (requests_in_flight.admitted, requests_in_flight.held, in_use(requests_in_flight)) == (0, 0, False)


async def test_the_stated_sizes_of_bodies_count_for_their_key_alone() -> None:
    requests_in_flight = RequestsInFlight()
    bounds = GatewayConfig(max_body_mb_in_flight=4, max_body_mb_in_flight_per_key=2)
    big, second, small, other = await entered(requests_in_flight, 4)
    requests_in_flight.take_place(big, "greedy", 3 * MIB, bounds)  # a single one is always taken
    with pytest.raises(RateLimitError):
        requests_in_flight.take_place(second, "greedy", MIB, bounds)
    requests_in_flight.take_place(small, "greedy", 0, bounds)
    requests_in_flight.take_place(other, "modest", 2 * MIB, bounds)
    assert requests_in_flight.held == 0
    for each in (big, small, other):
        requests_in_flight.leave(each)
    assert not in_use(requests_in_flight)


async def test_what_has_arrived_counts_for_all() -> None:
    requests_in_flight, bounds = RequestsInFlight(), GatewayConfig(max_body_mb_in_flight=4)
    first, second = await entered(requests_in_flight, 2)
    for each, key in ((first, "a"), (second, "b")):
        requests_in_flight.take_place(each, key, 3 * MIB, bounds)
    requests_in_flight.hold(first, 3 * MIB, bounds)
    with pytest.raises(ServiceUnavailableError) as refused:
        requests_in_flight.hold(second, 3 * MIB, bounds)
    assert refused.value.code == "overloaded"
    requests_in_flight.leave(first)
    requests_in_flight.hold(second, 3 * MIB, bounds)
    requests_in_flight.leave(second)
    assert requests_in_flight.held == 0


async def test_a_body_of_unstated_size_counts_as_it_arrives_and_is_stopped() -> None:
    requests_in_flight = RequestsInFlight()
    bounds = GatewayConfig(max_body_mb_in_flight_per_key=2)
    tasks = [asyncio.create_task(wait_for_an_answer(requests_in_flight)) for _ in range(2)]
    await asyncio.sleep(0)
    first, second = requests_in_flight
    for each in (first, second):
        requests_in_flight.take_place(each, "key", None, bounds)
    requests_in_flight.arrive(first, 2 * MIB, bounds)
    assert first.reason is None
    requests_in_flight.arrive(second, MIB, bounds)
    assert second.reason == "overloaded"
    error = second.error()
    assert error is not None and (error.status, error.headers) == (503, {"connection": "close"})
    requests_in_flight.stop_all()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (requests_in_flight.held, in_use(requests_in_flight)) == (0, False)


async def test_a_decoded_body_counts_for_its_key_with_the_size_that_it_has() -> None:
    requests_in_flight, bounds = RequestsInFlight(), GatewayConfig(max_body_mb_in_flight_per_key=2)
    task = asyncio.current_task()
    assert task is not None
    first, second, other = (requests_in_flight.enter(task) for _ in range(3))
    requests_in_flight.take_place(first, "a", MIB // 2, bounds)
    requests_in_flight.hold(first, 5 * MIB, bounds)  # one body may have any size that its route allows
    requests_in_flight.take_place(second, "a", 1000, bounds)
    with pytest.raises(RateLimitError):
        requests_in_flight.hold(second, MIB, bounds)
    requests_in_flight.take_place(other, "b", None, bounds)
    requests_in_flight.hold(other, MIB, bounds)
    assert requests_in_flight.held == 6 * MIB
    for in_flight in (first, second, other):
        requests_in_flight.leave(in_flight)
    assert requests_in_flight.held == 0
    again = requests_in_flight.enter(task)
    requests_in_flight.take_place(again, "a", 2 * MIB, bounds)
    requests_in_flight.leave(again)
