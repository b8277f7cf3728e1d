"""The readiness probe of a worker pod."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from quarterdeck.engine.kuberay import drain
from quarterdeck.engine.kuberay.ready import is_ready


class Handler(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Handler)
    monkeypatch.setattr(drain, "REPLICA_PORTS", range(server.server_port, server.server_port + 1))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def _table(*ports: int) -> str:
    rows = [f"   {at}: 00000000:{port:04X} 00000000:0000 0A 0 0 0" for at, port in enumerate(ports)]
    return "\n".join(["  sl  local_address rem_address   st tx_queue", *rows])


def test_a_pod_is_ready_when_its_replica_is_healthy(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_ready(f"{_table(8265)}\n{_table(port)}")
    monkeypatch.setattr(Handler, "status", 503)
    assert not is_ready(_table(port))


def test_a_pod_without_a_listening_replica_is_not_ready(port: int) -> None:
    assert not is_ready(_table(8265))
