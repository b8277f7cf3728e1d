"""Executes requests of an offline run at an engine: each until it has a result."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass

from quarterdeck import ids
from quarterdeck.protocol.batches.input_lines import Line
from quarterdeck.protocol.batches.results import Result, answered, retry_pause, unexecuted, verdict

ALONE_AFTER, MAX_LOST = 1, 3
"""Engines that ended while they had a request. After one it is sent with no other of its kind, so that a request which
ends its engine takes no others with it; after three it has failed."""


class EngineLostError(Exception):
    """The engine did not answer. `was_sent`: it may have begun with the request."""

    def __init__(self, message: str, *, was_sent: bool) -> None:
        super().__init__(message)
        self.was_sent = was_sent


@dataclass(frozen=True, slots=True)
class EngineAnswer:
    status: int
    body: bytes


class LineExecutor:
    """`post` sends a body to the engine, at most `limit` at once; it raises EngineLostError, and starts another engine
    when it is called again. `run`: part of the results' ids."""

    def __init__(
        self,
        post: Callable[[bytes], Awaitable[EngineAnswer]],
        run: str,
        limit: int,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._post = post
        self._run = run
        self._room = asyncio.Semaphore(limit)
        self._alone = asyncio.Lock()
        self._sleep = sleep

    async def execute(self, line: Line) -> Result:
        failures = refusals = lost = 0
        while True:
            try:
                async with self._alone if lost >= ALONE_AFTER else nullcontext(), self._room:
                    answer = await self._post(line.body)
            except EngineLostError as error:
                lost += error.was_sent
                if lost >= MAX_LOST:
                    message = f"The engine ended {lost} times while it executed this request."
                    return unexecuted(self._run, line.number, line.custom_id, code="no_answer", message=message)
                continue
            found = verdict(answer.status, None, failures)
            if found in ("done", "stop"):
                return answered(
                    self._run,
                    line.number,
                    line.custom_id,
                    status=answer.status,
                    request=ids.step_request_id(self._run, line.number),
                    body=answer.body,
                )
            failures += found == "retry"
            await self._sleep(retry_pause(max(failures, refusals), None, random.random()))  # noqa: S311  # no secret
            refusals += 1
