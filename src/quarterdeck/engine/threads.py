"""Blocking calls in daemon threads, which may hang without blocking the loop or its end.

`asyncio.to_thread` uses a pool that the end of the loop waits for, and a call into a dead Ray may never return. Here
each call has its own daemon thread and a timeout.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(call: Callable[[], T], timeout: float, *, stays: bool = False) -> T:
    """Return or raise what `call` does; TimeoutError after `timeout` seconds.

    `stays` keeps the thread alive after the call: Linux ends a child with PR_SET_PDEATHSIG (Ray's daemons set it) when
    the *thread* that started it ends.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)  # type: ignore[arg-type]  # T may be None itself

    def work() -> None:
        result, problem = None, None
        try:
            result = call()
        # Any exception is passed to the caller.
        except BaseException as error:
            problem = error
        try:
            loop.call_soon_threadsafe(settle, result, problem)
        except RuntimeError:
            return  # the loop has ended
        if stays:
            threading.Event().wait()

    threading.Thread(target=work, daemon=True, name=getattr(call, "__name__", "call")).start()
    async with asyncio.timeout(timeout):  # `wait_for` loses a cancellation that comes with the answer (Python 3.11)
        return await answer
