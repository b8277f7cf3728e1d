"""A small server that speaks as much of the Kubernetes API as clients read here: lists with pages, watches with
bookmarks, 410 Gone. It stands in for a real one only where that can't be made to misbehave: tests/cluster has the rest.

`faults` are answers given instead, one for each request, in order.
"""

import asyncio
import contextlib
import json
from collections import deque
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from quarterdeck.kube.access import ClusterAccess

Object = dict[str, Any]


def status(code: int, message: str = "") -> Object:
    return {"kind": "Status", "apiVersion": "v1", "code": code, "message": message}


class Fault:
    """A raw answer. `cut`: the connection is aborted after it."""

    def __init__(self, answer: bytes, *, cut: bool = True) -> None:
        self.answer, self.cut = answer, cut

    @classmethod
    def of(cls, code: int, body: bytes = b"{}", headers: str = "") -> "Fault":
        head = f"HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
        return cls(head.encode() + body, cut=False)


class ApiServer:
    """Objects of one namespace. `put` and `delete` are seen by watches at once."""

    def __init__(self, *, page: int = 1000) -> None:
        self.objects: dict[str, dict[str, Object]] = {}
        """By path of the collection, by name."""
        self.log: list[tuple[str, str, Object]] = []
        """Path, event type and object, in the order of versions."""
        self.version = 100
        self.oldest = 0
        """Watches from an older version are told 410."""
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.tokens: list[str] = []
        self.faults: deque[Fault] = deque()
        self.page = page
        self._changed = asyncio.Condition()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; again on the same port after `stop`."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections and abort those that are open."""
        if self._server is not None:
            self._server.close()
            self.cut()
            await self._server.wait_closed()
            self._server = None

    def cut(self) -> None:
        """Abort all connections."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    def access(self, namespace: str = "ns") -> ClusterAccess:
        return ClusterAccess(f"http://127.0.0.1:{self.port}", namespace)

    async def put(self, path: str, object: Object) -> None:
        collection = self.objects.setdefault(path, {})
        name = object["metadata"]["name"]
        kind = "MODIFIED" if name in collection else "ADDED"
        self.version += 1
        object["metadata"]["resourceVersion"] = str(self.version)
        collection[name] = object
        await self._note(path, kind, object)

    async def delete(self, path: str, name: str) -> None:
        self.version += 1
        found = self.objects[path].pop(name)
        found["metadata"]["resourceVersion"] = str(self.version)
        await self._note(path, "DELETED", found)

    async def emit(self, path: str, kind: str, object: Object) -> None:
        """Send an event to watches that changes nothing."""
        await self._note(path, kind, object)

    async def _note(self, path: str, kind: str, object: Object) -> None:
        self.log.append((path, kind, json.loads(json.dumps(object))))
        async with self._changed:
            self._changed.notify_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await self._answer(head.decode(), writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, head: str, writer: asyncio.StreamWriter) -> None:
        target = urlsplit(head.split(" ", 2)[1])
        query = {name: values[0] for name, values in parse_qs(target.query).items()}
        self.requests.append((target.path, query))
        self.tokens += [line.split(" ", 1)[1] for line in head.split("\r\n") if line.startswith("authorization: ")]
        if self.faults:
            fault = self.faults.popleft()
            writer.write(fault.answer)
            await writer.drain()
            if fault.cut:
                raise ConnectionAbortedError
            return
        if query.get("watch"):
            await self._watch(target.path, query, writer)
        else:
            await self._list(target.path, query, writer)

    async def _list(self, path: str, query: dict[str, str], writer: asyncio.StreamWriter) -> None:
        found = list(self.objects.get(path, {}).values())
        at, size = int(query.get("continue", "0")), min(self.page, int(query.get("limit", "1000")))
        metadata: Object = {"resourceVersion": str(self.version)}
        if at + size < len(found):
            metadata["continue"] = str(at + size)
        body = json.dumps({"metadata": metadata, "items": found[at : at + size] or None}).encode()
        writer.write(Fault.of(200, body).answer)
        await writer.drain()

    async def _watch(self, path: str, query: dict[str, str], writer: asyncio.StreamWriter) -> None:
        since = int(query["resourceVersion"])
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        if since < self.oldest:
            self._send(writer, {"type": "ERROR", "object": status(410, "too old resource version")})
            writer.write(b"0\r\n\r\n")
            return
        at = len([1 for _, _, each in self.log if int(each["metadata"].get("resourceVersion") or 0) <= since])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(float(query["timeoutSeconds"])):
                while True:
                    for of, kind, object in self.log[at:]:
                        if of == path:
                            self._send(writer, {"type": kind, "object": object})
                    at = len(self.log)
                    await writer.drain()
                    async with self._changed:
                        await self._changed.wait_for(lambda: len(self.log) > at)  # noqa: B023  # awaited here
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    def _send(self, writer: asyncio.StreamWriter, event: Object) -> None:
        line = json.dumps(event).encode() + b"\n"
        for start in range(0, len(line), 700):  # a chunk ends anywhere
            piece = line[start : start + 700]
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
