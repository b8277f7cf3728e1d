"""uvicorn as the gateway runs it."""

import ssl
import sys
from functools import partial

import uvicorn

from quarterdeck.gateway.http.bounded_protocol import HEAD_SECONDS
from quarterdeck.gateway.http.connections import Connections
from quarterdeck.gateway.http.front import FrontProtocol
from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle
from quarterdeck.net.sockets import BACKLOG
from quarterdeck.net.uvicorn_server import EmbeddedServer
from quarterdeck.net.write_batching import WriteBatches
from quarterdeck.settings.shutdown import SERVER_SECONDS


def create_server(
    app: RequestLifecycle,
    host: str,
    port: int,
    *,
    connections: Connections | None = None,
    head_seconds: float = HEAD_SECONDS,
    tls: ssl.SSLContext | None = None,
) -> EmbeddedServer:
    """httptools with our protocol class; without uvicorn's access log (`access_log` writes ours) and websockets.

    `connections` bounds those of clients. None: there is no bound. `tls`: serve HTTPS with this context.
    """
    if connections is None:
        connections = Connections(sys.maxsize)
    return EmbeddedServer(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            http=partial(FrontProtocol, connections, WriteBatches(), head_seconds),  # type: ignore[arg-type]  # it is only called
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ssl_context_factory=None if tls is None else lambda config, default: tls,
            # Requests in flight were drained before the server is asked to exit.
            timeout_graceful_shutdown=SERVER_SECONDS,
            backlog=BACKLOG,
        )
    )
