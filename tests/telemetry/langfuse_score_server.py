"""Stands in for Langfuse's score API, which needs its server: keeps scores by id and checks what Langfuse checks."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

AUTHORIZATION = "Basic " + base64.b64encode(b"pk-lf-1:sk-lf-2").decode()
KINDS = {"NUMERIC": (int, float), "BOOLEAN": (int, float), "CATEGORICAL": str}


class ScoreServer:
    """`scores` has what the server holds; while `status` is not 200, that is its answer."""

    def __init__(self) -> None:
        self.scores: dict[str, dict[str, Any]] = {}
        self.status = 200
        self.location = ""
        """Of a redirect."""
        self.calls: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.calls.append(f"POST {body.get('id')}")
                is_valid = {"id", "traceId", "name", "value", "dataType"} <= body.keys()
                is_valid = (
                    is_valid and isinstance(body["value"], KINDS[body["dataType"]]) and len(body["traceId"]) == 32
                )
                is_valid = is_valid and (body["dataType"] != "BOOLEAN" or body["value"] in (0, 1))
                if self._refuses(is_valid):
                    return
                outer.scores[body["id"]] = body
                self._answer(200, {"id": body["id"]})

            def do_GET(self) -> None:
                outer.calls.append(f"GET {self.path}")
                self._answer(200, {"data": []})

            def do_DELETE(self) -> None:
                id = self.path.rpartition("/")[2]
                outer.calls.append(f"DELETE {id}")
                if not self._refuses(True):
                    self._answer(202 if outer.scores.pop(id, None) else 404, {})

            def _refuses(self, is_valid: bool) -> bool:
                if outer.status != 200:
                    self._answer(outer.status, {"message": "no"})
                elif self.headers["authorization"] != AUTHORIZATION:
                    self._answer(401, {"message": "wrong key"})
                elif not is_valid or not self.path.startswith("/api/public/scores"):
                    self._answer(400, {"message": "invalid"})
                else:
                    return False
                return True

            def _answer(self, status: int, body: dict[str, Any]) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                if outer.location:
                    self.send_header("location", outer.location)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> "ScoreServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
