"""Forces an order of steps: actors proceed one step at a time, and a random generator chooses the next."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

from quarterdeck.net.redis import Redis, Script, Word


class Steps:
    """No actor proceeds before all others wait for their turn, so a seed determines the order."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._actors = 0
        self._waiting: list[asyncio.Future[None]] = []

    async def run(self, *actors: Coroutine[Any, Any, None]) -> None:
        self._actors = len(actors)
        await asyncio.gather(*[self._act(actor) for actor in actors])

    async def turn(self) -> None:
        """Wait for this actor's turn. Returns at once while no actors run."""
        if self._actors:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            self._give()
            await turn

    def of(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """Wrap a function so that each call is one step."""

        async def step(*arguments: Any) -> Any:
            await self.turn()
            return await function(*arguments)

        return step

    def of_redis(self, redis: Redis) -> Redis:
        """Wrap a connection so that each command and each script is one step."""
        return cast(Redis, _SteppedRedis(redis, self))

    async def _act(self, actor: Coroutine[Any, Any, None]) -> None:
        await actor
        self._actors -= 1
        self._give()

    def _give(self) -> None:
        if self._waiting and len(self._waiting) == self._actors:
            self._waiting.pop(self._dice.randrange(len(self._waiting))).set_result(None)


class _SteppedRedis:
    def __init__(self, redis: Redis, steps: Steps) -> None:
        self._redis = redis
        self._steps = steps

    is_cluster = False

    async def call(self, *words: Word, tag: str | None = None) -> Any:
        await self._steps.turn()
        return await self._redis.call(*words, tag=tag)

    async def execute(self, script: Script, command: bytes, tag: str) -> Any:
        await self._steps.turn()
        return await self._redis.execute(script, command, tag)

    async def run(self, script: Script, keys: list[Word], args: list[Word]) -> Any:
        await self._steps.turn()
        return await self._redis.run(script, keys, args)
