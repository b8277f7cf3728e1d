"""Disconnects of clients in an app that Ray Serve runs.

Serve *cancels* the app when the client disconnects, but vLLM stops a request that is not streamed only when it
*receives* the disconnect (its handler is a separate task, which outlives a cancelled parent). Without `DisconnectFirst`
the sequence would run to its last token.
"""

import asyncio

from quarterdeck.net.asgi import ASGIApp, Receive, Scope, Send

_DISCONNECT_GRACE_S = 1.0


class DisconnectFirst:
    """Lets the app receive a disconnect before it is cancelled.

    When Serve cancels because of a disconnect, that message is the next one of `receive`. So the app runs as a shielded
    task: it reads the message and ends by its own rules. If it has not ended within a second (a timeout has no
    message), it is cancelled.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.ensure_future(self._app(scope, receive, send))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            _, running = await asyncio.wait([task], timeout=_DISCONNECT_GRACE_S)
            if running:
                task.cancel()
            raise
