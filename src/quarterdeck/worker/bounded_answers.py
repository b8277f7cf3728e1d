"""Bounds on the answers that an httpx client reads, whatever the server sends: for servers that others run."""

from collections.abc import AsyncIterator

import httpx

IDENTITY = {"accept-encoding": "identity"}
"""Headers of requests: a compressed answer of a few bytes may become gigabytes, and is refused."""


def bound_answers(client: httpx.AsyncClient, most: int) -> None:
    """Have the client raise httpx.RemoteProtocolError for a compressed answer, or one of more than `most` bytes."""

    async def check(response: httpx.Response) -> None:
        if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise httpx.RemoteProtocolError("a compressed answer, which was not asked for", request=response.request)
        if isinstance(response.stream, httpx.AsyncByteStream):
            response.stream = _Bounded(response.stream, most)

    client.headers.update(IDENTITY)
    client.event_hooks = {**client.event_hooks, "response": [*client.event_hooks["response"], check]}


class _Bounded(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, most: int) -> None:
        self._stream = stream
        self._most = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self._stream:
            size += len(piece)
            if size > self._most:
                raise httpx.RemoteProtocolError(f"an answer of more than {self._most} bytes")
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()
