"""A fake `GET /endpoints` of the engine, without Ray, for a replica known only from it."""

import http.client
import threading
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.platform import SimulatorProcess
from tests.quiet_server import QuietHTTPServer


class FakeEngineList:
    """Serves `GET /endpoints` with the replica's own state, as the real engine gets it from Ray."""

    def __init__(self, replica: SimulatorProcess) -> None:
        self._replica = replica
        self._server: QuietHTTPServer | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen, on the same port after a stop."""
        if self._server is None:
            self._server = QuietHTTPServer(("127.0.0.1", self._port), self._handler())
            self._port = self._server.server_address[1]
            threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Stop listening."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        replica = self._replica

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                connection = http.client.HTTPConnection("127.0.0.1", replica.port, timeout=2)
                try:
                    connection.request("GET", "/endpoints")
                    body = connection.getresponse().read()
                except (OSError, http.client.HTTPException):
                    body = b'{"endpoints":[]}'
                finally:
                    connection.close()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Log nothing."""

        return Handler
