"""Small servers: one with fixed answers, and the simulated engine as a process."""

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def answering(answers: Mapping[str, tuple[int, bytes]]) -> Iterator[str]:
    """A base URL whose paths (`/models`) answer with (status, body); all others with a web server's 404."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            status, body = answers.get(self.path.removeprefix("/v1"), (404, b"<html>Not Found</html>"))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *words: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def simulator(*words: str) -> Iterator[str]:
    """The simulated engine's URL, without /v1."""
    command = [sys.executable, "-m", "quarterdeck.simulator", "--model", "simulated", "--port", "0", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as engine:
        try:
            assert engine.stdout is not None
            yield engine.stdout.readline().split()[-1]
        finally:
            engine.terminate()
