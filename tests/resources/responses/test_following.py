"""Streams that follow background responses look for further steps, more seldom the more of them there are."""

import asyncio
from typing import Any

from quarterdeck.resources.responses.following import LOOKS_PER_SECOND, POLL_SECONDS, Following, Pace
from quarterdeck.resources.responses.objects import new_response
from quarterdeck.resources.responses.requests import ResponseRequest
from quarterdeck.store.background_responses import Progress
from quarterdeck.store.ownership import Owner

OWNER = Owner("default", "red", "key_1")


class Waiting:
    """A store whose response is queued and stays so."""

    async def progress(self, id: str, of: Owner, position: int) -> Progress:
        return Progress("queued", ())


class Nowhere:
    def put(self, piece: bytes) -> bool:
        return True

    async def room(self) -> None: ...


class Sleep:
    """Notes for how long its caller wants to sleep, and sleeps until it is cancelled."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.began = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self.began.set()
        await asyncio.Event().wait()


def a_stream(pace: Pace, sleep: Sleep) -> Following:
    shown = new_response(ResponseRequest(model="chat", input="Hi"), "resp_1", 1.0, {}) | {"background": True}
    waiting: Any = Waiting()
    return Following(waiting, waiting, shown, OWNER, -1, pace, sleep=sleep)


async def test_many_streams_look_more_seldom_each_and_no_more_often_together() -> None:
    pace, sleeps = Pace(), [Sleep() for _ in range(400)]
    tasks = []
    for sleep in sleeps:
        tasks.append(asyncio.create_task(a_stream(pace, sleep).pump(Nowhere())))
        await sleep.began.wait()
    assert sleeps[0].seconds == [POLL_SECONDS]
    assert sleeps[-1].seconds == [len(sleeps) / LOOKS_PER_SECOND]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    alone = Sleep()
    task = asyncio.create_task(a_stream(pace, alone).pump(Nowhere()))
    await alone.began.wait()
    assert alone.seconds == [POLL_SECONDS]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
