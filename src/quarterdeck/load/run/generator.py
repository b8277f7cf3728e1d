"""Sends the requests of one process in one run: clients, prompts, timing and the buffer of samples.

Measurements also appear in locust's tables under the scenario's name, by type:

- `POST` and `SSE`: requests, plain and streamed, from when they were due to their end. `Aggregated` sums only these.
- `TTFT`: time to first token. `ITL`: each gap between two tokens; its requests/s are tokens per second.
- `TOK/S`: tokens per second of each stream, in place of milliseconds.
- `GOOD`: answers within the objectives; its requests/s are the goodput.
"""

import itertools
import random
from dataclasses import dataclass, field
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Group

from quarterdeck.load.analysis.samples import EXPECTED, Gaps, Sample
from quarterdeck.load.run.arrivals import Arrival, schedule
from quarterdeck.load.run.client import Client, OnPiece, now
from quarterdeck.load.run.profile import Profile, SlowReader, Tools
from quarterdeck.load.run.prompts import STREAMED, Conversation, PromptRequest, Prompts
from quarterdeck.load.run.target import Target

PREPARE_SECONDS = 0.005
"""How long before it is due a request is built, so that building it does not count as server time."""
TIMER_SECONDS = 0.0003
"""Timers are set this much early, because the event loop rounds up to whole milliseconds."""
UNKNOWN_KEY = "sk-unknown-key-of-a-load-test"


class RequestFailure(Exception):
    """An outcome that is an error, for locust's table of failures."""


@dataclass
class SampleBuffer:
    """Measurements since the last `take`."""

    rows: list[list[Any]] = field(default_factory=list)
    gaps: Gaps = field(default_factory=Gaps)

    def take(self) -> dict[str, Any]:
        """Empty the buffer and return its content as a message between processes."""
        batch = {"rows": self.rows, "gaps": self.gaps.counts}
        self.rows, self.gaps = [], Gaps()
        return batch


@dataclass(frozen=True, slots=True)
class Assignment:
    """A process's part in a run: start time, target and share of the arrivals."""

    start: float
    """Unix time of the schedule's first second."""
    target: Target
    share: int
    shares: int


class LoadGenerator:
    """Sends the requests of one process in one run; shared by all of its users."""

    def __init__(self, environment: Any, profile: Profile, assignment: Assignment) -> None:
        self._environment = environment
        self.profile = profile
        self.assignment = assignment
        self.buffer = SampleBuffer()
        self.stop_arrivals = False
        """Set to end the schedule early: a knee was found, or Ctrl-C. Requests in flight are still answered."""
        self.is_over = Event()
        """Set once the schedule has ended and every request is answered or abandoned."""
        target = assignment.target
        self._client = Client(target.url, target.key, profile.timeout)
        self._slow_client = Client(target.url, target.key, profile.timeout, small_buffers=True)
        self._bad_key_client = Client(target.url, UNKNOWN_KEY, profile.timeout)
        self._prompts = Prompts(profile, target.model, target.embedding_model)
        self._measured_from = assignment.start + profile.warmup
        self._thinking = random.Random(f"{profile.seed}/{assignment.share}/think")  # noqa: S311
        self._indexes = itertools.count(assignment.share, assignment.shares)

    def close(self) -> None:
        for client in (self._client, self._slow_client, self._bad_key_client):
            client.close()

    # ---- timing ----

    def keep_schedule(self) -> None:
        """The open loop: send each arrival of our share when it is due, whether or not earlier ones are answered."""
        in_flight = Group()
        try:
            for arrival in schedule(self.profile):
                if arrival.index % self.assignment.shares != self.assignment.share:
                    continue
                due = self.assignment.start + arrival.at
                _sleep_until(due - PREPARE_SECONDS)
                if self.stop_arrivals:
                    break
                prepared = self._prompts.request(arrival)
                _sleep_until(due)
                if len(in_flight) >= self.profile.most_in_flight:
                    self._record_not_sent(arrival, due)
                else:
                    in_flight.spawn(self._send, arrival, due, *prepared)
            in_flight.join(timeout=self.profile.drain)
        finally:
            in_flight.kill()
            self.is_over.set()

    def send_next(self, scenario: str) -> None:
        """The closed loop: send a user's next request now."""
        arrival = Arrival(next(self._indexes), 0.0, 0.0, scenario)
        self._send(arrival, None, *self._prompts.request(arrival))

    def pause(self) -> float:
        """A user's think time in seconds."""
        think = self.profile.think
        return self._thinking.expovariate(1 / think) if think else 0.0

    def _record_not_sent(self, arrival: Arrival, due: float) -> None:
        moment = now()
        self._record(Sample(arrival.scenario, due, moment, arrival.rate, ended=moment, outcome="not_sent"))

    # ---- requests ----

    def _send(
        self, arrival: Arrival, due: float | None, request: PromptRequest, conversation: Conversation | None
    ) -> None:
        """Send one request and record its sample. `due` None: now."""
        started = now()
        sample = Sample(arrival.scenario, started if due is None else due, started, arrival.rate or None)
        try:
            answer = self._send_as(arrival.scenario, request, sample)
        finally:
            # Locust stopped a closed loop's user during its request: not an error.
            if due is not None or sample.outcome != "unfinished":
                self._record(sample)
        if conversation is not None and sample.is_ok:
            self._prompts.conversations.answered(conversation, answer)

    def _send_as(self, name: str, request: PromptRequest, sample: Sample) -> str:
        scenario = self.profile.scenarios.chosen[name]
        if name == "bad_key":
            self._bad_key_client.send(request, sample)
            sample.outcome = f"{EXPECTED}401" if sample.status == 401 else _unexpected(sample)
            return ""
        if name == "disconnect":
            after = self.profile.scenarios.disconnect.after_pieces if self.profile.scenarios.disconnect else 0
            self._client.send(request, sample, lambda s: s.pieces >= after)
            if sample.outcome == "hung_up":
                sample.outcome = f"{EXPECTED}hung_up"
            return ""
        if isinstance(scenario, SlowReader):
            self._slow_client.send(request, sample, _pausing(scenario.pause))
            if sample.is_ok:
                sample.outcome = f"{EXPECTED}read_slowly"
            elif sample.outcome in ("cut", "stream_slow_reader"):
                sample.outcome = f"{EXPECTED}cut_off"  # a server may cut it to bound its memory
            return ""
        answer = self._client.send(request, sample)
        if (
            isinstance(scenario, Tools)
            and scenario.tool_choice == "required"
            and sample.is_ok
            and not answer.startswith("{")
        ):
            sample.outcome = "no_tool_call"
        return answer

    # ---- results ----

    def _record(self, sample: Sample) -> None:
        """Add the sample to the buffer and, after the warm-up, to locust's tables."""
        self.buffer.rows.append(sample.row("main"))
        if sample.intended < self._measured_from:
            return
        if sample.is_ok:
            self.buffer.gaps.add(sample.scenario, sample.gaps_ms)
        self._environment.events.request.fire(
            request_type="SSE" if sample.scenario in STREAMED else "POST",
            name=sample.scenario,
            response_time=sample.total_ms,
            response_length=sample.bytes,
            exception=RequestFailure(sample.outcome) if sample.is_error else None,
            context={},
        )
        if not sample.is_ok:
            return
        stats = self._environment.stats
        if (ttft := sample.ttft_ms) is not None:
            stats.get(sample.scenario, "TTFT").log(ttft, 0)
        if sample.gaps_ms:
            gaps = stats.get(sample.scenario, "ITL")
            for gap in sample.gaps_ms:
                gaps.log(gap, 0)
        if (speed := sample.tokens_per_second) is not None:
            stats.get(sample.scenario, "TOK/S").log(speed, 0)
        if sample.keeps(self.profile.slo):
            stats.get(sample.scenario, "GOOD").log(sample.answer_ms, 0)


def _sleep_until(moment: float) -> None:
    """Sleep to a fraction of a millisecond; the rest is a busy wait that lets other greenlets run."""
    while (early := moment - now()) > 0:
        gevent.sleep(max(0.0, early - TIMER_SECONDS))


def _unexpected(sample: Sample) -> str:
    return f"accepted_{sample.status}" if sample.status and sample.status < 400 else sample.outcome


def _pausing(pause: float) -> OnPiece:
    def wait(sample: Sample) -> bool:
        gevent.sleep(pause)
        return False

    return wait
