"""A fake engine that records requests byte for byte and answers with given bytes."""

import contextlib
import json
import socket
import threading
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Seen:
    """A received request."""

    line: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def path(self) -> str:
        return self.line.split(" ")[1]

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.headers}


def chat(text: str = "hi") -> bytes:
    """The body of a chat completion."""
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
            "data": [],
        }
    ).encode()


def http(status: int, body: bytes, *headers: str, content_type: str = "application/json") -> bytes:
    """A response."""
    head = [f"HTTP/1.1 {status} Whatever", f"content-type: {content_type}", f"content-length: {len(body)}", *headers]
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


def events(*data: str, headers: tuple[str, ...] = (), ends: bool = True) -> bytes:
    """A chunked stream; without `ends` the connection is closed after it."""
    head = ["HTTP/1.1 200 OK", "content-type: text/event-stream", "transfer-encoding: chunked", *headers]
    chunks = "".join(f"{len(event):x}\r\n{event}\r\n" for event in (f"data: {each}\n\n" for each in data))
    return ("\r\n".join(head) + "\r\n\r\n" + chunks + ("0\r\n\r\n" if ends else "")).encode("latin-1")


def delta(text: str) -> str:
    """An event of a chat stream."""
    return json.dumps(
        {"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
    )


CLOSING = (
    '{"id":"chatcmpl-1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
    '{"id":"chatcmpl-1","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}',
    "[DONE]",
)


class RecordingEngine:
    """Listens on its own port and answers every path with `answer`; with `holds` it then waits for the client to
    disconnect."""

    def __init__(self) -> None:
        self.answer = http(200, chat())
        self.holds = False
        self.endless = b""
        """Sent repeatedly after a chat's answer, as long as the client reads."""
        self.taken: list[int] = []
        """Bytes of it sent on each closed connection."""
        self.seen: list[Seen] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        # Closing alone does not wake a thread blocked in accept.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in tuple(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._open.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, ValueError), connection.makefile("rb") as reader:
            while line := reader.readline():
                headers = []
                while (header := reader.readline().decode("latin-1").rstrip("\r\n")) != "":
                    name, _, value = header.partition(": ")
                    headers.append((name.lower(), value))
                body = reader.read(int(dict(headers).get("content-length", "0")))
                self.seen.append(Seen(line.decode("latin-1").rstrip(), tuple(headers), body))
                answer = self.answer
                connection.sendall(answer)
                if self.endless and b"/chat/" in line:
                    self._pour(connection)
                if self.holds:
                    reader.read(1)
                if b"chunked" in answer and not answer.endswith(b"0\r\n\r\n"):
                    break
        self._open.discard(connection)

    def _pour(self, connection: socket.socket) -> None:
        size, data = 0, self.endless
        try:
            while True:
                size += connection.send(data[size % len(data) :])
        except OSError:
            self.taken.append(size)
            raise
