import asyncio
import signal

import uvicorn

from quarterdeck.net.asgi import Receive, Scope, Send
from quarterdeck.net.sockets import listen
from quarterdeck.net.uvicorn_server import EmbeddedServer


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    raise NotImplementedError


async def test_signals_stay_with_the_process() -> None:
    before = signal.getsignal(signal.SIGTERM)
    config = uvicorn.Config(app, log_config=None, lifespan="off")
    listener = listen("127.0.0.1", 0)
    server = EmbeddedServer(config)
    task = asyncio.create_task(server.serve([listener]))
    _, writer = await asyncio.open_connection(*listener.getsockname())  # it serves
    assert signal.getsignal(signal.SIGTERM) == before
    writer.close()
    server.should_exit = True
    await task
    listener.close()
