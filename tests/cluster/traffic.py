"""Constant traffic from outside the cluster, and what became of each request.

Requests start at a fixed rate, whatever becomes of the earlier ones (an open loop), most of them streams, over
kept-alive connections as OpenAI's SDK has them and without its retries. A stream is complete if it had a finish reason,
its usage and `[DONE]`; everything else is a failure. A mutation of the cluster is done inside `around`:

    with traffic.around("gateway rollout") as window:
        kubectl("rollout", "restart", "deployment/qd-gateway")
        kubectl.rolled_out("deployment", "qd-gateway")
    window.assert_no_errors()
"""

import asyncio
import contextlib
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx

TIMEOUT_S = 120
"""For a connection, and for each piece of an answer: what takes longer has failed."""
WAIT_S = 480
SETTLE = 40
"""Requests that must have been begun and answered after a mutation before its window ends: two seconds of traffic."""


@dataclass
class Sent:
    """One request."""

    number: int
    is_stream: bool
    begun: float
    """Seconds since the traffic's start."""
    ended: float | None = None
    error: str | None = None
    """None: complete, once it has ended."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    id: str = ""
    """The gateway's request id."""


@dataclass
class Window:
    """The requests that were under way or begun during a mutation, and SETTLE more."""

    name: str
    begun: float
    ended: float = 0.0
    requests: list[Sent] = field(default_factory=list)

    @property
    def errors(self) -> list[Sent]:
        return [one for one in self.requests if one.error]

    def assert_no_errors(self) -> None:
        """Every request was complete. Raises AssertionError with the kinds of failures and when they came."""
        assert self.requests, f"{self.name}: no request was under way"
        if self.errors:
            kinds = Counter(str(one.error) for one in self.errors)
            first = [
                f"  #{one.number} {'stream' if one.is_stream else 'plain'} begun {one.begun - self.begun:+.2f} s,"
                f" failed {(one.ended or 0) - self.begun:+.2f} s, {one.id}: {one.error}"
                for one in self.errors[:10]
            ]
            counts = [f"  {count} × {error}" for error, count in kinds.most_common()]
            raise AssertionError(
                "\n".join([f"{self.name}: {len(self.errors)} of {len(self.requests)} requests failed", *counts, *first])
            )


class Traffic:
    """`rate` requests a second to a model, `streams` of them streams, from `clients` clients with connections of their
    own. Runs in a thread, so a test may block."""

    def __init__(
        self,
        url: str,
        key: str,
        model: str,
        rate: float = 20,
        *,
        key_id: str = "",
        streams: float = 0.8,
        max_tokens: int = 40,
        clients: int = 4,
    ) -> None:
        self.key_id = key_id
        self.requests: list[Sent] = []
        self.marks: list[tuple[str, float]] = []
        self._url, self._model, self._rate, self._streams = url, model, rate, streams
        self._headers = {"authorization": f"Bearer {key}"}
        self._max_tokens = max_tokens
        self._clients = clients
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="traffic", daemon=True)
        self._zero = time.monotonic()
        self._broken: BaseException | None = None

    def start(self, first: int = 10) -> None:
        """Start, and return once `first` requests were answered. Raises AssertionError if one of them failed."""
        self._zero = time.monotonic()
        self._thread.start()
        self._wait(lambda: sum(one.ended is not None for one in self.requests) >= first, "the first answers")
        failed = [one.error for one in self.requests if one.error]
        assert not failed, f"requests fail before any mutation: {Counter(failed).most_common(3)}"

    def stop(self) -> None:
        """Begin no more requests, and wait for those under way."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(WAIT_S)
        if self._broken:
            raise self._broken

    @property
    def now(self) -> float:
        return time.monotonic() - self._zero

    def mark(self, name: str) -> float:
        """Note a moment by name; returns it, in seconds since the start."""
        self.marks.append((name, self.now))
        return self.marks[-1][1]

    @contextlib.contextmanager
    def around(self, name: str, settle: int = SETTLE) -> Iterator[Window]:
        """A mutation. After its block, waits until `settle` later requests and all that were under way have ended."""
        window = Window(name, self.mark(f"{name}: begin"))
        yield window
        window.ended = self.mark(f"{name}: end")

        def is_over() -> bool:
            later = [one for one in self.requests if one.begun > window.ended]
            return (
                len(later) >= settle
                and all(one.ended is not None for one in later[:settle])
                and not [one for one in self.requests if one.begun <= window.ended and one.ended is None]
            )

        self._wait(is_over, f"the end of {name}")
        window.requests = [one for one in self.requests if one.ended is not None and one.ended >= window.begun]

    def assert_no_errors(self) -> None:
        """Every request was complete, those after the windows too. Raises AssertionError with the kinds of failures."""
        Window("all of the traffic", 0.0, requests=list(self.requests)).assert_no_errors()

    def totals(self) -> dict[str, int]:
        """What a ledger must have of this traffic, once it has stopped: the counts that clients saw."""
        done = [one for one in self.requests if one.error is None]
        return {
            "requests": len(self.requests),
            "input_tokens": sum(one.prompt_tokens for one in done),
            "output_tokens": sum(one.completion_tokens for one in done),
        }

    def _wait(self, until: Callable[[], object], what: str) -> None:
        with self._changed:
            arrived = self._changed.wait_for(lambda: self._broken or until(), timeout=WAIT_S)
        if self._broken:
            raise self._broken
        open_ = [one for one in self.requests if one.ended is None]
        oldest = [
            f"#{one.number} {'stream' if one.is_stream else 'plain'} {self.now - one.begun:.0f} s" for one in open_
        ]
        assert arrived, f"{what} not within {WAIT_S} s: {len(open_)} requests have no end, the oldest {oldest[:5]}"

    async def _run(self) -> None:
        try:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
            async with contextlib.AsyncExitStack() as stack:
                clients = [
                    await stack.enter_async_context(
                        httpx.AsyncClient(headers=self._headers, timeout=TIMEOUT_S, limits=limits, trust_env=False)
                    )
                    for _ in range(self._clients)
                ]
                async with asyncio.TaskGroup() as group:
                    for number in itertools.count():
                        due = number / self._rate - self.now
                        if due > 0:
                            await asyncio.sleep(due)
                        if self._stopping.is_set():
                            break
                        is_stream = (number % 100) < self._streams * 100
                        sent = Sent(number, is_stream, self.now)
                        self.requests.append(sent)
                        group.create_task(self._send(clients[number % len(clients)], sent))
        except BaseException as error:
            self._broken = error
            with self._changed:
                self._changed.notify_all()

    async def _send(self, client: httpx.AsyncClient, sent: Sent) -> None:
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": f"Request {sent.number}: count to forty."}],
            "max_tokens": self._max_tokens,
            "stream": sent.is_stream,
        }
        if sent.is_stream:
            body["stream_options"] = {"include_usage": True}
        try:
            sent.error = await (self._stream if sent.is_stream else self._plain)(client, sent, body)
        except httpx.HTTPError as error:
            sent.error = f"{type(error).__name__}: {error}"
        sent.ended = self.now
        with self._changed:
            self._changed.notify_all()

    async def _plain(self, client: httpx.AsyncClient, sent: Sent, body: dict[str, object]) -> str | None:
        response = await client.post(f"{self._url}/v1/chat/completions", json=body)
        sent.id = response.headers.get("x-request-id", "")
        if response.status_code != 200:
            return f"{response.status_code} {response.text[:300]}"
        answer = response.json()
        self._count(sent, answer.get("usage"))
        return None if answer["choices"][0]["finish_reason"] else "an answer without finish reason"

    async def _stream(self, client: httpx.AsyncClient, sent: Sent, body: dict[str, object]) -> str | None:
        finish, usage, is_done = None, None, False
        async with client.stream("POST", f"{self._url}/v1/chat/completions", json=body) as response:
            sent.id = response.headers.get("x-request-id", "")
            if response.status_code != 200:
                return f"{response.status_code} {(await response.aread()).decode()[:300]}"
            async for line in response.aiter_lines():
                if not line.startswith("data: "):
                    continue
                if (data := line.removeprefix("data: ")) == "[DONE]":
                    is_done = True
                    continue
                event = json.loads(data)
                if "error" in event:
                    return f"error event: {event['error'].get('code')} {event['error'].get('message')}"
                usage = event.get("usage") or usage
                for choice in event.get("choices", ()):
                    finish = choice.get("finish_reason") or finish
        self._count(sent, usage)
        missing = [
            name for name, there in (("finish reason", finish), ("usage", usage), ("[DONE]", is_done)) if not there
        ]
        return f"truncated stream: no {', no '.join(missing)}" if missing else None

    @staticmethod
    def _count(sent: Sent, usage: dict[str, int] | None) -> None:
        sent.prompt_tokens = (usage or {}).get("prompt_tokens", 0)
        sent.completion_tokens = (usage or {}).get("completion_tokens", 0)
