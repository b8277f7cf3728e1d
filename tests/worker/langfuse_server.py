"""Stands in for Langfuse's prompt API, which needs its server (Postgres, ClickHouse, object storage).

Enforces what the server does, as read in its source (4.16): Basic authentication, names, labels (unique across the
versions of a prompt, `latest` reserved and moved by itself, added by PATCH and never removed), one type per prompt,
variables and placeholders with different names, commit messages of 500 characters, pages of 100, JavaScript's numbers.
"""

import base64
import gzip
import itertools
import json
import re
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

AUTHORIZATION = "Basic " + base64.b64encode(b"pk-lf-1:sk-lf-2").decode()
LABEL = re.compile(r"[a-z0-9_\-.]+")
VARIABLE = re.compile(r"{{([^{}]*)}}")
PROJECT = "proj_1"

Version = dict[str, Any]


class Refusal(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class LangfuseServer:
    """`prompts`: versions by name, the oldest first. `status`, while it is not 200, is the answer to everything.

    `lose_replies`: so many next writes are carried out and answered with 502.
    """

    def __init__(self) -> None:
        self.prompts: dict[str, list[Version]] = {}
        self.status = 200
        self.headers: dict[str, str] = {}
        self.lose_replies = 0
        self.refuse_labels: set[str] = set()
        """Protected ones."""
        self.calls: list[str] = []
        self.traces: list[bytes] = []
        """Exports of traces, as protobuf."""
        self._ids = itertools.count(1)
        self._time = datetime(2026, 1, 1, tzinfo=UTC)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._handle("GET")

            def do_POST(self) -> None:
                self._handle("POST")

            def do_PATCH(self) -> None:
                self._handle("PATCH")

            def _handle(self, method: str) -> None:
                raw = self.rfile.read(int(self.headers.get("content-length") or 0))
                parts = urlsplit(self.path)
                query = dict(parse_qsl(parts.query))
                outer.calls.append(f"{method} {parts.path}")
                try:
                    if self.headers["authorization"] != AUTHORIZATION:
                        raise Refusal(401, "Invalid credentials")
                    if outer.status != 200:
                        raise Refusal(outer.status, "no")
                    if parts.path == "/api/public/otel/v1/traces":
                        is_gzip = self.headers["content-encoding"] == "gzip"
                        outer.traces.append(gzip.decompress(raw) if is_gzip else raw)
                        self._send(200, {})
                        return
                    answer = outer._answer(method, parts.path, query, json.loads(raw) if raw else None)
                    if method != "GET" and outer.lose_replies:
                        outer.lose_replies -= 1
                        raise Refusal(502, "the reply is lost")
                    self._send(200, answer)
                except Refusal as refusal:
                    self._send(refusal.status, {"message": str(refusal)})

            def _send(self, status: int, body: Any) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                for name, value in (outer.headers if status != 200 else {}).items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> "LangfuseServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # What people do at Langfuse.

    def create(self, name: str, prompt: Any, labels: tuple[str, ...] = (), config: Any = None, **fields: Any) -> int:
        kind = "text" if isinstance(prompt, str) else "chat"
        body = {"name": name, "prompt": prompt, "type": kind, "labels": list(labels), "config": config or {}, **fields}
        number: int = self._create(body)["version"]
        return number

    def label(self, name: str, number: int, *labels: str) -> None:
        self._label(name, number, {"newLabels": list(labels)})

    def unlabel(self, name: str, label: str) -> None:
        """In its web interface: the public API has no way to."""
        for version in self.prompts[name]:
            self._set_labels(version, [each for each in version["labels"] if each != label])

    def delete_version(self, name: str, number: int) -> None:
        self.prompts[name] = [each for each in self.prompts[name] if each["version"] != number]

    def labels(self, name: str) -> dict[str, int]:
        found = {label: each["version"] for each in self.prompts.get(name, ()) for label in each["labels"]}
        return {label: number for label, number in sorted(found.items()) if label != "latest"}

    def texts(self, name: str) -> dict[int, Any]:
        return {each["version"]: each["prompt"] for each in self.prompts.get(name, ())}

    @property
    def writes(self) -> list[str]:
        return [call for call in self.calls if not call.startswith("GET")]

    # Its API.

    def _answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
        if path == "/api/public/projects":
            organization = {"id": "org_1", "name": "o"}
            return {"data": [{"id": PROJECT, "name": "p", "organization": organization, "metadata": {}}]}
        if path == "/api/public/v2/prompts":
            return self._create(body) if method == "POST" else self._list(query)
        found = re.fullmatch(r"/api/public/v2/prompts/([^/]+)(?:/versions/(\d+))?", path)
        if found is None:
            raise Refusal(404, "no such route")
        name = unquote(found[1])
        if found[2] is not None and method == "PATCH":
            return self._label(name, int(found[2]), body)
        if method == "GET":
            return self._get(name, query)
        raise Refusal(405, "Method not allowed")

    def _get(self, name: str, query: dict[str, str]) -> Version:
        for version in self.prompts.get(name, ()):
            if "version" in query:
                is_it = version["version"] == int(query["version"])
            else:
                is_it = query.get("label", "production") in version["labels"]
            if is_it:
                return version
        raise Refusal(404, f"Prompt not found: '{name}'")

    def _list(self, query: dict[str, str]) -> Any:
        page, limit = int(query.get("page", 1)), int(query.get("limit", 10))
        if not 1 <= limit <= 100:
            raise Refusal(400, "limit")
        names = sorted(name for name, versions in self.prompts.items() if versions)
        names = [name for name in names if query.get("name") in (None, name)]
        shown = names[(page - 1) * limit : page * limit]
        meta = {"page": page, "limit": limit, "totalItems": len(names), "totalPages": -(-len(names) // limit)}
        return {"data": [self._meta(name) for name in shown], "meta": meta}

    def _meta(self, name: str) -> Any:
        versions = self.prompts[name]
        return {
            "name": name,
            "type": versions[-1]["type"],
            "versions": [each["version"] for each in versions],
            "labels": sorted({label for each in versions for label in each["labels"]}),
            "tags": versions[-1]["tags"],
            "lastUpdatedAt": max(each["updatedAt"] for each in versions),
            "lastConfig": versions[-1]["config"],
        }

    def _create(self, body: Any) -> Version:
        name, prompt, kind = body["name"], body["prompt"], body.get("type") or "text"
        if not name or len(name) > 255 or "|" in name or "<" in name or name in ("new", "metrics"):
            raise Refusal(400, "Invalid prompt name")
        if isinstance(prompt, str) != (kind == "text"):
            raise Refusal(400, "Invalid prompt")
        if len(body.get("commitMessage") or "") > 500:
            raise Refusal(400, "Commit message is too long")
        labels = body.get("labels") or []
        self._check_labels(labels)
        versions = self.prompts.setdefault(name, [])
        if versions and versions[-1]["type"] != kind:
            raise Refusal(400, "Previous versions have different prompt type.")
        if kind == "chat":
            prompt = [self._message(each) for each in prompt]
            placeholders = {each["name"] for each in prompt if each.get("type") == "placeholder"}
            used = {name for each in prompt for name in VARIABLE.findall(each.get("content", ""))}
            if placeholders & used:
                raise Refusal(400, "variables and placeholders must be unique")
        self._time += timedelta(milliseconds=1)
        version = {
            "id": f"v_{next(self._ids)}",
            "name": name,
            "version": versions[-1]["version"] + 1 if versions else 1,
            "type": kind,
            "prompt": prompt,
            "config": _javascript(body.get("config") or {}),
            "labels": [],
            "tags": body.get("tags") or (versions[-1]["tags"] if versions else []),
            "commitMessage": body.get("commitMessage"),
            "createdAt": self._time.isoformat(),
            "updatedAt": self._time.isoformat(),
        }
        versions.append(version)
        self._move_labels(name, version, [*labels, "latest"])
        return version

    def _message(self, message: Any) -> Any:
        if message.get("type") == "placeholder":
            if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_]*", message["name"]):
                raise Refusal(400, "Invalid placeholder")
            return {"type": "placeholder", "name": message["name"]}
        if not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str):
            raise Refusal(400, "Invalid message")
        return {"type": "chatmessage", "role": message["role"], "content": message["content"]}

    def _label(self, name: str, number: int, body: Any) -> Version:
        self._check_labels(body["newLabels"])
        if set(body["newLabels"]) & self.refuse_labels:
            raise Refusal(400, "the label is protected")
        version = self._get(name, {"version": str(number)})
        self._move_labels(name, version, body["newLabels"])
        return version

    def _check_labels(self, labels: list[str]) -> None:
        for label in labels:
            if label == "latest" or len(label) > 36 or not LABEL.fullmatch(label):
                raise Refusal(400, f"Invalid label: {label}")

    def _move_labels(self, name: str, version: Version, labels: list[str]) -> None:
        for each in self.prompts[name]:
            if each is version:
                self._set_labels(each, [*dict.fromkeys([*each["labels"], *labels])])
            elif set(each["labels"]) & set(labels):
                self._set_labels(each, [label for label in each["labels"] if label not in labels])

    def _set_labels(self, version: Version, labels: list[str]) -> None:
        self._time += timedelta(milliseconds=1)
        version["labels"], version["updatedAt"] = labels, self._time.isoformat()


def _javascript(value: Any) -> Any:
    """As JSON that a JavaScript server read and wrote: 1.0 is 1."""
    if isinstance(value, dict):
        return {name: _javascript(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_javascript(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
