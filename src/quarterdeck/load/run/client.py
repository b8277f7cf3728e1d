"""The measuring HTTP client, on geventhttpclient: a connection pool, and a timestamp for each piece of a stream.

It does not depend on locust. The caller passes a `Sample`, which the client fills in; failures become the sample's
`outcome`, not exceptions.
"""

import socket
import ssl
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import gevent
import msgspec
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError, HTTPSocketPoolResponse

from quarterdeck.load.analysis.samples import Sample
from quarterdeck.load.run.prompts import PromptRequest

_OFFSET = time.time() - time.perf_counter()
MOST_CONNECTIONS = 20_000
SMALL_BUFFER = 4096
"""A slow reader's receive buffer in bytes; the kernel's megabytes would hide it from the server."""


def now() -> float:
    """Monotonic Unix time in seconds, at perf_counter's resolution."""
    return _OFFSET + time.perf_counter()


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    """As `reasoning_content`, in servers that follow vLLM's newer name."""
    tool_calls: list[msgspec.Raw] | None = None


class _Call(msgspec.Struct):
    function: dict[str, str | None]


class _Message(msgspec.Struct):
    content: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    message: _Message | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class _Response(msgspec.Struct):
    """The fields read from a chunk, a plain response or an error."""

    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: dict[str, msgspec.Raw] | None = None


_decode = msgspec.json.Decoder(_Response).decode

OnPiece = Callable[[Sample], bool]
"""Called after each piece of a stream; return True to disconnect."""


class Client:
    """Sends requests to one server."""

    def __init__(self, url: str, key: str, timeout: float, *, small_buffers: bool = False) -> None:
        parts = urlsplit(url)
        self._path = parts.path.rstrip("/")
        self._headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
        self._http = HTTPClient.from_url(
            f"{parts.scheme}://{parts.netloc}",
            concurrency=MOST_CONNECTIONS,
            connection_timeout=timeout,
            network_timeout=timeout,
            block_size=SMALL_BUFFER if small_buffers else 16 * 1024,
        )
        if small_buffers:
            # The pool's hook for socket options. The client builds its own pool, so it is set from outside.
            self._http._connection_pool.after_connect = _shrink

    def close(self) -> None:
        self._http.close()

    def send(self, request: PromptRequest, sample: Sample, on_piece: OnPiece | None = None) -> str:
        """Send the request; fill in the sample. Returns the answer's text, or its tool call's arguments, or ""."""
        response = None
        try:
            response = self._http.request("POST", self._path + request.path, request.body, self._headers)
            sample.status = response.status_code
            sample.request_id = _header(response, "x-request-id")
            sample.cache = _header(response, "x-cache")
            if response.status_code >= 400:
                sample.outcome = _refusal(response.status_code, _body(response))
                return ""
            if "text/event-stream" in _header(response, "content-type"):
                return self._read_stream(response, sample, on_piece)
            body = _body(response)
            sample.bytes = len(body)
            return _read_plain(body, sample)
        except gevent.GreenletExit:
            sample.outcome = "unfinished"  # the run ended
            raise
        except (OSError, HTTPParseError, msgspec.DecodeError) as error:
            sample.outcome = _failure(error, is_begun=sample.status != 0)
            return ""
        finally:
            sample.ended = now()
            sample.output_tokens = sample.output_tokens or sample.pieces  # no usage: a piece is at least one token
            if response is not None:
                response.release()  # to the pool; closed if the answer was not read to its end

    def _read_stream(self, response: HTTPSocketPoolResponse, sample: Sample, on_piece: OnPiece | None) -> str:
        texts: list[str] = []
        is_done = False
        while line := response.readline(b"\n"):
            at = now()
            sample.bytes += len(line)
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                is_done = True
                continue
            chunk = _decode(data)
            if chunk.error is not None:
                sample.outcome = f"stream_{_code(chunk.error) or 'error'}"
                continue
            if chunk.usage is not None:
                _count(chunk.usage, sample)
            if text := _text(chunk):
                sample.add_piece(at)
                texts.append(text)
                if on_piece is not None and on_piece(sample):
                    sample.outcome = "hung_up"
                    break
        else:
            if not is_done and sample.is_ok:
                sample.outcome = "cut"
        return "".join(texts)


def _read_plain(body: bytes, sample: Sample) -> str:
    answer = _decode(body)
    if answer.error is not None:
        sample.outcome = _code(answer.error) or "error"
    if answer.usage is not None:
        _count(answer.usage, sample)
    message = answer.choices[0].message if answer.choices else None
    if message is None:
        return ""
    if message.tool_calls:
        return message.tool_calls[0].function.get("arguments") or ""
    return message.content or ""


def _text(chunk: _Response) -> str:
    """The text of a token event; "" for other events (role, finish, usage)."""
    delta = chunk.choices[0].delta if chunk.choices else None
    if delta is None:
        return ""
    thought = delta.reasoning_content or delta.reasoning
    return delta.content or thought or ("{}" if delta.tool_calls else "")


def _count(usage: _Usage, sample: Sample) -> None:
    sample.input_tokens = usage.prompt_tokens
    sample.output_tokens = usage.completion_tokens or 0
    if usage.prompt_tokens_details is not None:
        sample.cached_tokens = usage.prompt_tokens_details.cached_tokens or 0


def _body(response: HTTPSocketPoolResponse) -> bytes:
    body = bytes(response.read())
    if not response.message_complete:
        raise HTTPConnectionClosed("the response body is incomplete")
    return body


def _header(response: HTTPSocketPoolResponse, name: str) -> str:
    value = response.get(name)
    return (value[0] if isinstance(value, list) else value) or ""


def _code(error: dict[str, msgspec.Raw]) -> str:
    """The error's code, unless it is a number as vLLM's (the status); else its type."""
    for name in ("code", "type"):
        if name in error:
            value = msgspec.json.decode(error[name])
            if isinstance(value, str) and value and not value.isdecimal():
                return value
    return ""


def _refusal(status: int, body: bytes) -> str:
    try:
        answer = _decode(body)
    except msgspec.DecodeError:
        return f"http_{status}"
    return (_code(answer.error) if answer.error else "") or f"http_{status}"


def _failure(error: Exception, *, is_begun: bool) -> str:
    """The outcome for a failure below HTTP."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ssl.SSLError):
        return "tls"
    if isinstance(error, ConnectionRefusedError):
        return "connection_refused"
    if isinstance(error, msgspec.DecodeError):
        return "malformed"
    if isinstance(error, HTTPParseError | ConnectionError):
        return "cut" if is_begun else "connection_closed"
    return "connection_failed"


def _shrink(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
