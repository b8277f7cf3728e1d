"""A Hugging Face hub on this machine: a real HTTP server that speaks what huggingface_hub asks for.

Model info, the tree, `resolve` with ETags and a redirect of large files to another path with Range; gated and private
repositories; branches that move; a transfer that is held after some bytes.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LFS_BYTES = 1 << 20
PIECE = 1 << 16
TOKEN = "hf_valid"


def tiny_model(weights: bytes = b"w" * 100, **config: Any) -> dict[str, bytes]:
    """The files of a model that a simulator serves."""
    made = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", **config}
    return {
        "config.json": json.dumps(made).encode(),
        "tokenizer.json": b"{}",
        "model.safetensors": weights,
        "README.md": b"# A model",
        "pytorch_model.bin": b"the same once more",
    }


class Repository:
    def __init__(self, *, is_gated: bool = False, is_private: bool = False) -> None:
        self.is_gated, self.is_private = is_gated, is_private
        self.commits: dict[str, dict[str, bytes]] = {}
        self.refs: dict[str, str] = {}

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Add a commit to a branch."""
        content = b"".join(name.encode() + value for name, value in sorted(files.items()))
        sha = hashlib.sha256(content + str(len(self.commits)).encode()).hexdigest()[:40]
        self.commits[sha] = files
        self.refs[branch] = sha
        return sha


class Hub:
    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str, str]] = []
        """Method, path and Range header."""
        self.sent = 0
        """Bytes of large files."""
        self.hold_after: int | None = None
        """Bytes of large files after which transfers wait. None: none does."""
        self.damages = False
        self.status: int | None = None
        """Every answer's. None: as it is."""
        self.go_on = threading.Event()
        self.is_held = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def add(self, name: str, files: dict[str, bytes], **kind: bool) -> str:
        """A repository with one commit, which is returned."""
        self.repositories[name] = Repository(**kind)
        return self.repositories[name].commit(files)

    @contextmanager
    def running(self) -> Iterator["Hub"]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.go_on.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("range", "")))
        try:
            if self.hub.status is not None:
                self._answer(self.hub.status, b"{}")
            elif path.startswith("/cdn/"):
                self._large(path.removeprefix("/cdn/"))
            elif path.startswith("/api/models/"):
                self._api(path.removeprefix("/api/models/"))
            else:
                self._resolve(path[1:])
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _api(self, rest: str) -> None:
        for kind in ("/revision/", "/tree/"):
            name, found, revision = rest.partition(kind)
            if found and (files := self._files(name, revision)) is not None:
                sha, content = files
                made = [_tree_entry(path, value) for path, value in content.items()]
                if kind == "/tree/":
                    self._json(made)
                else:
                    siblings = [{"rfilename": each["path"], "blobId": each["oid"], **each} for each in made]
                    self._json({"id": name, "modelId": name, "sha": sha, "siblings": siblings, "private": False})
                return
            if found:
                return
        self._refuse(404, "RepoNotFound", "Repository not found")

    def _resolve(self, rest: str) -> None:
        name, found, place = rest.partition("/resolve/")
        revision, _, path = place.partition("/")
        if not found or (files := self._files(name, revision)) is None:
            return
        sha, content = files
        if path not in content:
            self._refuse(404, "EntryNotFound", "Entry not found")
            return
        value = content[path]
        entry = _tree_entry(path, value)
        headers = {"x-repo-commit": sha, "etag": f'"{entry["oid"]}"', "accept-ranges": "bytes"}
        if "lfs" in entry:
            location = f"http://localhost:{self.server.server_address[1]}/cdn/{entry['lfs']['sha256']}"
            linked = {"x-linked-etag": f'"{entry["lfs"]["sha256"]}"', "x-linked-size": str(len(value))}
            self._answer(302, b"", {**headers, **linked, "location": location})
        else:
            self._answer(200, value, headers)

    def _large(self, digest: str) -> None:
        commits = (files for each in self.hub.repositories.values() for files in each.commits.values())
        values = (value for files in commits for value in files.values())
        value = next(each for each in values if hashlib.sha256(each).hexdigest() == digest)
        begins = int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if begins else 200)
        self.send_header("content-length", str(len(value) - begins))
        self.send_header("etag", f'"{digest}"')
        if begins:
            self.send_header("content-range", f"bytes {begins}-{len(value) - 1}/{len(value)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        for at in range(begins, len(value), PIECE):
            if self.hub.hold_after is not None and self.hub.sent >= self.hub.hold_after:
                self.hub.is_held.set()
                self.hub.go_on.wait(120)
            piece = value[at : at + PIECE]
            self.wfile.write(b"x" * len(piece) if self.hub.damages else piece)
            self.hub.sent += len(piece)

    def _files(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Of a revision; None, with the answer sent, where this caller may not have them."""
        repository = self.hub.repositories.get(name)
        token = self.headers.get("authorization", "").removeprefix("Bearer ")
        if token and token != TOKEN:
            words = "Invalid credentials in Authorization header"
            self._answer(401, json.dumps({"error": words}).encode(), {"x-error-message": words})
            return None
        if repository is None or (repository.is_private and not token):
            self._refuse(404 if token else 401, "RepoNotFound", "Repository not found")
            return None
        is_content = "/resolve/" in self.path
        if repository.is_gated and not token and is_content:
            self._refuse(401, "GatedRepo", f"Access to model {name} is restricted. You must be authenticated.")
            return None
        sha = repository.refs.get(revision, revision)
        if sha not in repository.commits:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return sha, repository.commits[sha]

    def _refuse(self, status: int, code: str, message: str) -> None:
        body = json.dumps({"error": message}).encode()
        self._answer(status, body, {"x-error-code": code, "x-error-message": message})

    def _json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode(), {"content-type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _tree_entry(path: str, value: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "type": "file",
        "path": path,
        "size": len(value),
        "oid": hashlib.sha256(value).hexdigest()[:40],
    }
    if len(value) >= LFS_BYTES:
        digest = hashlib.sha256(value).hexdigest()
        entry["lfs"] = {"oid": digest, "sha256": digest, "size": len(value), "pointerSize": 134}
    return entry
