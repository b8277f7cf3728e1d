"""A light mixed load during a fault, with the answers that its callers saw."""

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Self

import httpx
from tests.faults.client import Answer, Shape, ask

MIXED = (
    Shape("chat"),
    Shape("chat", stream=True),
    Shape("embeddings"),
    Shape("completions", stream=True, asks_usage=True),
    Shape("chat", stream=True, asks_usage=True, max_tokens=30),
    Shape("completions"),
)
LONG = Shape("chat", stream=True, asks_usage=True, max_tokens=400)
"""A stream of about two seconds."""


class Traffic:
    """Requests at a constant rate in an open loop, so that a hang does not look like a pause.

    `models` says which model a shape asks for; `fields` go into the next one's body.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        models: Callable[[Shape], str],
        *,
        shapes: Sequence[Shape] = MIXED,
        rate: float = 25.0,
        deadline: float = 10.0,
        fields: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self._client = client
        self._models = models
        self._shapes = itertools.cycle(shapes)
        self._interval = 1 / rate
        self._deadline = deadline
        self._fields = fields
        self._asking: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()
        self._driver: asyncio.Task[None] | None = None
        self.answers: list[Answer] = []

    async def __aenter__(self) -> Self:
        self._driver = asyncio.create_task(self._drive())
        await self.answered(6)
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Send no more, and wait for all answers, each with its deadline."""
        assert self._driver is not None
        self._driver.cancel()
        await asyncio.gather(self._driver, return_exceptions=True)
        await asyncio.gather(*self._asking)

    @contextlib.asynccontextmanager
    async def around(self, fault: str) -> AsyncIterator[None]:
        """Assert that traffic flows before and after the block; `fault` names it in failures."""
        await self.answered(12)
        try:
            yield
            await self.answered(12)
        except TimeoutError as error:
            raise AssertionError(f"{fault}: the traffic did not recover: {self.outcomes()}") from error

    async def answered(
        self, count: int, outcome: str = "ok", *, seconds: float = 30.0, since: float | None = None
    ) -> None:
        """Wait for `count` answers with this outcome among requests sent from now on (or since `since`)."""
        begun = time.monotonic() if since is None else since

        def are_there() -> bool:
            return sum(a.started >= begun and a.outcome == outcome for a in self.answers) >= count

        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(are_there)

    def outcomes(self) -> Counter[str]:
        return Counter(answer.outcome for answer in self.answers)

    @property
    def slowest(self) -> float:
        return max(answer.seconds for answer in self.answers)

    async def _drive(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            task = loop.create_task(self._ask(next(self._shapes)))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
            due += self._interval
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def _ask(self, shape: Shape) -> None:
        answer = await ask(self._client, shape, self._models(shape), deadline=self._deadline, **self._fields())
        async with self._changed:
            self.answers.append(answer)
            self._changed.notify_all()


@contextlib.asynccontextmanager
async def long_streams(
    client: httpx.AsyncClient, model: str, count: int = 5, **fields: int
) -> AsyncIterator[list["asyncio.Task[Answer]"]]:
    """Start streams, wait until they have begun, and await them at the end."""
    begun = [asyncio.Event() for _ in range(count)]
    tasks = [asyncio.create_task(ask(client, LONG, model, deadline=30, begun=event, **fields)) for event in begun]
    try:
        for event in begun:
            await event.wait()
        yield tasks
    finally:
        await asyncio.gather(*tasks)
