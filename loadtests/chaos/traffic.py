"""Traffic of a soak: the load profile `soak`, sent by a strict client, with the result of each attempt.

Schedule, scenarios and prompts come from quarterdeck.load, the strict client from tests/faults: it distinguishes
truncated streams, partial events and missing finish reasons. Attempts at a stopping gateway are repeated at the other
one, as behind a load balancer; each attempt is recorded, because each may leave a row in the ledger.
"""

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from loadtests.chaos.faults import MOVED_ON
from loadtests.chaos.platform import CACHED, EMBEDDING, MODEL
from tests.faults.client import Answer, Shape, ask

from quarterdeck.load.analysis.samples import EXPECTED, Sample
from quarterdeck.load.run.arrivals import Arrival, schedule
from quarterdeck.load.run.profile import Embeddings, Profile
from quarterdeck.load.run.prompts import Prompts

DEADLINE_SECONDS = 45.0
"""Longer requests count as hanging: a stream takes about 300 ms, an engine's silence ends after 8 s, and there are two
engines."""
TRIES = 3


@dataclass(frozen=True, slots=True)
class Caller:
    """A key and its expected limits."""

    name: str
    secret: str
    share: float
    """Share of all requests."""
    allows: frozenset[str] = frozenset()
    """Outcomes that its limits permit at any time."""
    has_budget: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """A finished attempt as the client saw it, without the text. Times are Unix seconds."""

    caller: Caller
    tag: str
    gateway: int
    operation: str
    model: str
    is_stream: bool
    started: float
    ended: float
    status: int
    outcome: str
    code: str | None
    request_id: str
    cache: str
    finish: str | None
    usage: tuple[int, int, int] | None
    """Prompt, cached and completion tokens reported in the answer."""
    pieces: int
    max_tokens: int
    """The requested value; 0: not a generating request."""

    @property
    def is_cache_hit(self) -> bool:
        return self.cache == "hit"

    def __str__(self) -> str:
        what = f"{self.operation}{' stream' if self.is_stream else ''} by {self.caller.name}, {self.tag}"
        return f"{what}, {self.request_id or 'no id'}: {self.outcome} after {self.ended - self.started:.2f} s"


class Traffic:
    """Sends the schedule as an open loop and collects the attempts."""

    def __init__(self, profile: Profile, callers: Sequence[Caller], gateways: Sequence[str]) -> None:
        self.attempts: list[Attempt] = []
        self.samples: list[Sample] = []
        """Samples for requests.csv since the last read."""
        self.outcomes: Counter[str] = Counter()
        self.in_flight = 0
        self._profile = profile
        self._callers = callers
        self._prompts = Prompts(profile, MODEL, EMBEDDING)
        self._turn = itertools.count()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        self._clients = [httpx.AsyncClient(base_url=url, limits=limits) for url in gateways]
        self._since = time.time() - time.monotonic()

    async def warm(self, caller: Caller) -> None:
        """Send one request before the start: a new budget returns 503 until the worker has counted its spending."""
        while True:
            for at, client in enumerate(self._clients):
                answer = await self._try(client, caller, Shape("embeddings"), EMBEDDING, "", {})
                entry = self._entry(answer, caller, at, 0)
                if entry.code != "limits_unavailable":
                    self.attempts.append(entry)
                    return
            await asyncio.sleep(0.2)

    async def run(self, start: float) -> None:
        """Send the schedule from `start` (Unix seconds); return after the last answer."""
        try:
            async with asyncio.TaskGroup() as group:
                for arrival in schedule(self._profile):
                    await asyncio.sleep(max(0.0, start + arrival.at - time.time()))
                    group.create_task(self._send(arrival, start + arrival.at))
        finally:
            for client in self._clients:
                await client.aclose()

    async def _send(self, arrival: Arrival, due: float) -> None:
        self.in_flight += 1
        caller = self._caller(arrival.index)
        prompt, conversation = self._prompts.request(arrival)
        body = json.loads(prompt.body)
        body.pop("stream", None)
        body.pop("stream_options", None)
        model = body.pop("model")
        if arrival.scenario == "repeat":
            model = CACHED
        shape = self._shape(arrival.scenario, is_stream=prompt.is_streamed)
        turn = next(self._turn)
        for left in range(TRIES - 1, -1, -1):
            at = (turn + left) % len(self._clients)
            answer = await self._try(self._clients[at], caller, shape, model, arrival.scenario, body)
            entry = self._entry(answer, caller, at, body.get("max_tokens", 0))
            self.attempts.append(entry)
            moves_on = entry.outcome in MOVED_ON and left > 0
            self.samples.append(self._sample(arrival, due, answer, entry, moves_on=moves_on))
            self.outcomes["moved on" if moves_on else entry.outcome] += 1
            if not moves_on:
                break
        if conversation is not None and answer.outcome == "ok":
            self._prompts.conversations.answered(conversation, answer.text)
        self.in_flight -= 1

    async def _try(
        self,
        client: httpx.AsyncClient,
        caller: Caller,
        shape: Shape,
        model: str,
        scenario: str,
        body: Mapping[str, Any],
    ) -> Answer:
        disconnect = self._profile.scenarios.disconnect
        leaves_after = disconnect.after_pieces if disconnect and scenario == "disconnect" else None
        headers = {"authorization": f"Bearer {caller.secret}"}
        return await ask(
            client, shape, model, deadline=DEADLINE_SECONDS, leaves_after=leaves_after, headers=headers, **body
        )

    def _caller(self, index: int) -> Caller:
        draw = random.Random(f"{self._profile.seed}/{index}/caller")
        return draw.choices(self._callers, [caller.share for caller in self._callers])[0]

    def _shape(self, scenario: str, *, is_stream: bool) -> Shape:
        settings = self._profile.scenarios.chosen[scenario]
        if isinstance(settings, Embeddings):
            return Shape("embeddings", inputs=settings.inputs)
        return Shape("chat", stream=is_stream, asks_usage=is_stream)

    def _entry(self, answer: Answer, caller: Caller, gateway: int, max_tokens: int) -> Attempt:
        usage = answer.usage
        details = (usage or {}).get("prompt_tokens_details") or {}
        counts = None
        if usage is not None:
            counts = (usage["prompt_tokens"], details.get("cached_tokens") or 0, usage.get("completion_tokens") or 0)
        outcome = answer.outcome
        if outcome == "broken":
            outcome = "refused" if is_refused(answer) else f"broken: {answer.broke}"
        return Attempt(
            caller=caller,
            tag=answer.tag,
            gateway=gateway + 1,
            operation=answer.shape.operation,
            model=answer.model,
            is_stream=answer.shape.stream,
            started=self._since + answer.started,
            ended=self._since + answer.ended,
            status=answer.status,
            outcome=outcome,
            code=(answer.error or {}).get("code"),
            request_id=answer.headers.get("x-request-id", ""),
            cache=answer.headers.get("x-cache", ""),
            finish=answer.finish,
            usage=counts,
            pieces=answer.pieces,
            max_tokens=max_tokens,
        )

    def _sample(self, arrival: Arrival, due: float, answer: Answer, entry: Attempt, *, moves_on: bool) -> Sample:
        first = None if answer.first is None else self._since + answer.first
        last = None if answer.last is None else self._since + answer.last
        gaps = []
        if first is not None and last is not None and answer.pieces > 1:
            gaps = [(last - first) * 1e3 / (answer.pieces - 1)]  # only their mean: a row holds one
        outcome = entry.outcome
        if moves_on:
            outcome = f"{EXPECTED}moved_on"
        elif outcome == "left":
            outcome = f"{EXPECTED}hung_up"
        elif outcome in entry.caller.allows:
            outcome = f"{EXPECTED}{entry.code}"
        prompt, cached, completion = entry.usage or (0, 0, 0)
        return Sample(
            scenario=arrival.scenario,
            intended=due,
            started=entry.started,
            rate=arrival.rate,
            ended=entry.ended,
            first_token=first,
            last_token=last,
            status=entry.status,
            outcome=outcome,
            input_tokens=prompt,
            cached_tokens=cached,
            output_tokens=completion,
            pieces=entry.pieces,
            gaps_ms=gaps,
            cache=entry.cache,
            request_id=entry.request_id,
        )


def is_refused(answer: Answer) -> bool:
    """Whether there was no response at all, so that another gateway can be tried safely."""
    reasons = ("ConnectError", "RemoteProtocolError: Server disconnected", "ReadError", "WriteError")
    return answer.status == 0 and (answer.broke or "").startswith(reasons)
