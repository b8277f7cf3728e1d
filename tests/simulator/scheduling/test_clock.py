import asyncio

from quarterdeck.simulator.scheduling.clock import Clock


async def test_waiters_of_one_slot_share_a_timer_and_wake_in_order() -> None:
    clock = Clock(resolution=0.01)
    woken: list[int] = []

    async def wait(number: int, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(number)

    began = clock.now()
    await asyncio.gather(wait(2, 0.05), wait(1, 0.0), wait(3, 0.051))
    assert woken[0] == 1
    assert sorted(woken) == [1, 2, 3]
    assert clock.now() - began >= 0.05


async def test_a_time_that_has_passed_does_not_wait() -> None:
    clock = Clock()
    await clock.sleep_until(clock.now() - 1)


async def test_a_cancelled_waiter_does_not_hold_up_the_others() -> None:
    clock = Clock()
    cancelled = asyncio.create_task(clock.sleep(0.01))
    other = asyncio.create_task(clock.sleep(0.01))
    await asyncio.sleep(0)
    cancelled.cancel()
    await other
