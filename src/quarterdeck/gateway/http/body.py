"""A request's body, bounded in size. That it comes in time is the business of `callers`."""

import asyncio
from typing import Protocol

from quarterdeck.gateway.http.callers import Caller
from quarterdeck.net.asgi import Receive, read_body


class Body(Protocol):
    """Where a request's body comes from, and after it the word that its caller hung up."""

    async def read(self, limit: int) -> bytes:
        """All of it. Raises RequestTooLargeError and ClientGoneError."""
        ...

    def watch(self, caller: Caller) -> None:
        """From now on tell the caller when it hangs up. The body has been read."""
        ...

    def close(self) -> None:
        """Stop watching."""
        ...


class AsgiBody:
    """Out of `receive`, which has to be waited on for the news that nobody is there any more."""

    def __init__(self, receive: Receive, content_length: int | None) -> None:
        self._receive = receive
        self._content_length = content_length
        self._watcher: asyncio.Task[None] | None = None

    async def read(self, limit: int) -> bytes:
        return await read_body(self._receive, limit, self._content_length)

    def watch(self, caller: Caller) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._listen(caller))

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()

    async def _listen(self, caller: Caller) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass  # a server may say again that the body is over
        caller.hang_up()
