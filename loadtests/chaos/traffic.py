"""The load door's profile `soak`, asked by a client that reads as strictly as a caller may, and what became of each.

The schedule, the scenarios and the words are the load door's; the reading is that of tests/faults: a stream without its
end, half an event, an answer without its finish reason are told from one another. A gateway that ends is left for the
other one, as a balancer's client does; each try is an entry of its own, because each may leave a row in the ledger.
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
from tests.faults.asking import Answer, Shape, ask

from quarterdeck.load.analysis.samples import EXPECTED, Sample
from quarterdeck.load.run.arrivals import Arrival, schedule
from quarterdeck.load.run.profile import Embeddings, Profile
from quarterdeck.load.run.prompts import Prompts

DEADLINE_SECONDS = 45.0
"""No request of this profile takes so long, whatever happens to it: its stream is some 300 ms, an engine's silence ends
after 8 s, and there are two engines. What takes longer hangs."""
TRIES = 3


@dataclass(frozen=True, slots=True)
class Caller:
    """A key, and what is known of it."""

    name: str
    secret: str
    share: float
    """Of all requests."""
    allows: frozenset[str] = frozenset()
    """What its limits may answer at any time."""
    has_budget: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """One try, over: what its caller saw, without its text. Times are Unix seconds."""

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
    """Prompt, cached, completion tokens, as the answer told."""
    pieces: int
    max_tokens: int
    """As asked for; 0: it generates nothing."""

    @property
    def is_hit(self) -> bool:
        return self.cache == "hit"

    def __str__(self) -> str:
        what = f"{self.operation}{' stream' if self.is_stream else ''} by {self.caller.name}, {self.tag}"
        return f"{what}, {self.request_id or 'no id'}: {self.outcome} after {self.ended - self.started:.2f} s"


class Traffic:
    """Asks the whole schedule, each request when it is due, whatever became of those before it."""

    def __init__(self, profile: Profile, callers: Sequence[Caller], gateways: Sequence[str]) -> None:
        self.asked: list[Asked] = []
        self.samples: list[Sample] = []
        """Since they were last taken, as requests.csv wants them."""
        self.outcomes: Counter[str] = Counter()
        self.under_way = 0
        self._profile = profile
        self._callers = callers
        self._prompts = Prompts(profile, MODEL, EMBEDDING)
        self._turn = itertools.count()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        self._clients = [httpx.AsyncClient(base_url=url, limits=limits) for url in gateways]
        self._since = time.time() - time.monotonic()

    async def warm(self, caller: Caller) -> None:
        """Ask once, before the start: what a new budget has spent is unknown until the worker has looked (503)."""
        while True:
            for at, client in enumerate(self._clients):
                answer = await self._try(client, caller, Shape("embeddings"), EMBEDDING, "", {})
                entry = self._entry(answer, caller, at, 0)
                if entry.code != "limits_unavailable":
                    self.asked.append(entry)
                    return
            await asyncio.sleep(0.2)

    async def run(self, start: float) -> None:
        """From `start` (Unix seconds) to the last answer."""
        try:
            async with asyncio.TaskGroup() as group:
                for arrival in schedule(self._profile):
                    await asyncio.sleep(max(0.0, start + arrival.at - time.time()))
                    group.create_task(self._ask(arrival, start + arrival.at))
        finally:
            for client in self._clients:
                await client.aclose()

    async def _ask(self, arrival: Arrival, due: float) -> None:
        self.under_way += 1
        caller = self._caller(arrival.index)
        question, conversation = self._prompts.request(arrival)
        body = json.loads(question.body)
        body.pop("stream", None)
        body.pop("stream_options", None)
        model = body.pop("model")
        if arrival.scenario == "repeat":
            model = CACHED
        shape = self._shape(arrival.scenario, is_stream=question.is_streamed)
        turn = next(self._turn)
        for left in range(TRIES - 1, -1, -1):
            at = (turn + left) % len(self._clients)
            answer = await self._try(self._clients[at], caller, shape, model, arrival.scenario, body)
            entry = self._entry(answer, caller, at, body.get("max_tokens", 0))
            self.asked.append(entry)
            moves_on = entry.outcome in MOVED_ON and left > 0
            self.samples.append(self._sample(arrival, due, answer, entry, moves_on=moves_on))
            self.outcomes["moved on" if moves_on else entry.outcome] += 1
            if not moves_on:
                break
        if conversation is not None and answer.outcome == "ok":
            self._prompts.conversations.answered(conversation, answer.text)
        self.under_way -= 1

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
        asking = self._profile.scenarios.chosen[scenario]
        if isinstance(asking, Embeddings):
            return Shape("embeddings", inputs=asking.inputs)
        return Shape("chat", stream=is_stream, asks_usage=is_stream)

    def _entry(self, answer: Answer, caller: Caller, gateway: int, max_tokens: int) -> Asked:
        usage = answer.usage
        details = (usage or {}).get("prompt_tokens_details") or {}
        counts = None
        if usage is not None:
            counts = (usage["prompt_tokens"], details.get("cached_tokens") or 0, usage.get("completion_tokens") or 0)
        outcome = answer.outcome
        if outcome == "broken":
            outcome = "refused" if is_refused(answer) else f"broken: {answer.broke}"
        return Asked(
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

    def _sample(self, arrival: Arrival, due: float, answer: Answer, entry: Asked, *, moves_on: bool) -> Sample:
        first = None if answer.first is None else self._since + answer.first
        last = None if answer.last is None else self._since + answer.last
        gaps = []
        if first is not None and last is not None and answer.pieces > 1:
            gaps = [(last - first) * 1e3 / (answer.pieces - 1)]  # their mean: what a row has room for
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
    """Nobody was there, or the connection was closed without a byte of an answer: safe to ask another one."""
    reasons = ("ConnectError", "RemoteProtocolError: Server disconnected", "ReadError", "WriteError")
    return answer.status == 0 and (answer.broke or "").startswith(reasons)
