"""A blocking call beside the loop, that may hang for ever without holding anyone up.

`asyncio.to_thread` keeps its threads, and the loop's end waits for them; a call into a Ray that has died may never come
back. Here each call has a thread of its own, a daemon, and a time after which nobody listens to it any more.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(call: Callable[[], T], timeout: float, *, stays: bool = False) -> T:
    """What `call` returns or raises; TimeoutError after `timeout` seconds.

    `stays`: the thread lives on. Linux ends a child that asked for it (PR_SET_PDEATHSIG, as Ray's daemons do) when the
    *thread* ends that started it.
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
        # Whatever it raises is handed on to the one who waits.
        except BaseException as error:
            problem = error
        try:
            loop.call_soon_threadsafe(settle, result, problem)
        except RuntimeError:
            return  # the loop has ended in the meantime
        if stays:
            threading.Event().wait()

    threading.Thread(target=work, daemon=True, name=getattr(call, "__name__", "call")).start()
    return await asyncio.wait_for(answer, timeout)
