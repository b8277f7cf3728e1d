"""Who asks: locust's users, one class a scenario, and the one that keeps an open loop's schedule.

`Stage` is what all users of a process share: the client, the prompts and the tape on which samples are kept until the
master takes them. What is measured stands in locust's own tables under the scenario's name, by type:

- `POST` and `SSE`: the requests, plain and streamed, from when they were wanted to their end. Only these are summed up
  in `Aggregated`.
- `TTFT`: to the first token. `ITL`: each gap between two tokens; its requests/s are tokens a second.
- `TOK/S`: tokens a second of each stream, in the place of milliseconds.
- `GOOD`: the answers within the objectives; its requests/s are the goodput.
"""

import itertools
import random
from dataclasses import dataclass, field
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Group
from locust import User, task
from locust.exception import StopUser

from quarterdeck.load.analysis.statistics import EXPECTED, Gaps, Sample
from quarterdeck.load.run.arrivals import Arrival, schedule
from quarterdeck.load.run.profile import Profile, SlowReader, Tools
from quarterdeck.load.run.prompts import STREAMED, Ask, Conversation, Prompts
from quarterdeck.load.run.streaming import Client, OnPiece, now
from quarterdeck.load.run.target import Target

PREPARE_SECONDS = 0.005
"""So long before it is due a request is made: making it is not its server's time."""
TIMER_SECONDS = 0.0003
"""A timer set for so much earlier is on average in time: the event loop rounds up to whole milliseconds."""
UNKNOWN_KEY = "sk-nobody-gave-this-key-out"


class RequestFailure(Exception):
    """Only for locust's table of failures: an outcome that is an error."""


@dataclass
class Tape:
    """What was measured since it was last taken."""

    rows: list[list[Any]] = field(default_factory=list)
    gaps: Gaps = field(default_factory=Gaps)

    def take(self) -> dict[str, Any]:
        """All of it, fit for a message between processes; the tape is empty then."""
        batch = {"rows": self.rows, "gaps": self.gaps.counts}
        self.rows, self.gaps = [], Gaps()
        return batch


@dataclass(frozen=True, slots=True)
class Begin:
    """The word from the master that starts a run: when, for whom, and which part is this process's."""

    start: float
    """Unix time of the schedule's first second."""
    target: Target
    share: int
    shares: int


class Stage:
    """What the users of one process share in one run."""

    def __init__(self, environment: Any, profile: Profile, begin: Begin) -> None:
        self._environment = environment
        self.profile = profile
        self.begin = begin
        self.tape = Tape()
        self.enough = False
        """No further arrival is wanted: a knee was found, or somebody pressed Ctrl-C. Answers are still waited for."""
        self.is_over = Event()
        """The schedule is through and every answer is in, or given up."""
        target = begin.target
        self._client = Client(target.url, target.key, profile.timeout)
        self._slow_client = Client(target.url, target.key, profile.timeout, small_buffers=True)
        self._stranger = Client(target.url, UNKNOWN_KEY, profile.timeout)
        self._prompts = Prompts(profile, target.model, target.embedding_model)
        self._measured_from = begin.start + profile.warmup
        self._thinking = random.Random(f"{profile.seed}/{begin.share}/think")  # noqa: S311
        self._indexes = itertools.count(begin.share, begin.shares)

    def close(self) -> None:
        for client in (self._client, self._slow_client, self._stranger):
            client.close()

    # ---- when ----

    def keep_schedule(self) -> None:
        """The open loop: every arrival of ours at its moment, whatever became of those before it."""
        asking = Group()
        try:
            for arrival in schedule(self.profile):
                if arrival.index % self.begin.shares != self.begin.share:
                    continue
                due = self.begin.start + arrival.at
                _sleep_until(due - PREPARE_SECONDS)
                if self.enough:
                    break
                prepared = self._prompts.ask(arrival)
                _sleep_until(due)
                if len(asking) >= self.profile.most_in_flight:
                    self._give_up(arrival, due)
                else:
                    asking.spawn(self._ask, arrival, due, *prepared)
            asking.join(timeout=self.profile.drain)
        finally:
            asking.kill()
            self.is_over.set()

    def ask_next(self, scenario: str) -> None:
        """The closed loop: a user asks when it likes."""
        arrival = Arrival(next(self._indexes), 0.0, 0.0, scenario)
        self._ask(arrival, None, *self._prompts.ask(arrival))

    def pause(self) -> float:
        """How long a user thinks."""
        think = self.profile.think
        return self._thinking.expovariate(1 / think) if think else 0.0

    def _give_up(self, arrival: Arrival, due: float) -> None:
        moment = now()
        self._keep(Sample(arrival.scenario, due, moment, arrival.rate, ended=moment, outcome="not_sent"))

    # ---- what ----

    def _ask(self, arrival: Arrival, due: float | None, ask: Ask, conversation: Conversation | None) -> None:
        """One request, from its sending to its record. `due` None: now."""
        started = now()
        sample = Sample(arrival.scenario, started if due is None else due, started, arrival.rate or None)
        try:
            answer = self._play(arrival.scenario, ask, sample)
        finally:
            # A closed loop's user that locust stops takes its question back: that is nobody's error.
            if due is not None or sample.outcome != "unfinished":
                self._keep(sample)
        if conversation is not None and sample.is_ok:
            self._prompts.conversations.answered(conversation, answer)

    def _play(self, scenario: str, ask: Ask, sample: Sample) -> str:
        asking = self.profile.scenarios.chosen[scenario]
        if scenario == "bad_key":
            self._stranger.ask(ask, sample)
            sample.outcome = f"{EXPECTED}401" if sample.status == 401 else _unexpected(sample)
            return ""
        if scenario == "disconnect":
            after = self.profile.scenarios.disconnect.after_pieces if self.profile.scenarios.disconnect else 0
            self._client.ask(ask, sample, lambda s: s.pieces >= after)
            if sample.outcome == "hung_up":
                sample.outcome = f"{EXPECTED}hung_up"
            return ""
        if isinstance(asking, SlowReader):
            self._slow_client.ask(ask, sample, _pausing(asking.pause))
            if sample.is_ok:
                sample.outcome = f"{EXPECTED}read_slowly"
            elif sample.outcome in ("cut", "stream_slow_reader"):
                sample.outcome = f"{EXPECTED}cut_off"  # a server may: it must not hold an answer in memory for ever
            return ""
        answer = self._client.ask(ask, sample)
        if (
            isinstance(asking, Tools)
            and asking.tool_choice == "required"
            and sample.is_ok
            and not answer.startswith("{")
        ):
            sample.outcome = "no_tool_call"
        return answer

    # ---- what came of it ----

    def _keep(self, sample: Sample) -> None:
        """Onto the tape, and into locust's tables unless it belongs to the warm-up."""
        self.tape.rows.append(sample.row("main"))
        if sample.intended < self._measured_from:
            return
        if sample.is_ok:
            self.tape.gaps.add(sample.scenario, sample.gaps_ms)
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
    """To a fraction of a millisecond; what remains is waited for by looking, while others are served."""
    while (early := moment - now()) > 0:
        gevent.sleep(max(0.0, early - TIMER_SECONDS))


def _unexpected(sample: Sample) -> str:
    return f"let_in_{sample.status}" if sample.status and sample.status < 400 else sample.outcome


def _pausing(pause: float) -> OnPiece:
    def wait(sample: Sample) -> bool:
        gevent.sleep(pause)
        return False

    return wait


# ---- the users -------------------------------------------------------------------------------------------------------


class OpenLoop(User):
    """Keeps the schedule of one process. Locust counts it as a user; those who ask are the schedule's arrivals."""

    @task
    def keep_schedule(self) -> None:
        self.environment.stage.keep_schedule()
        raise StopUser


class Asker(User):
    """A closed loop's user: asks, waits for the answer, thinks, asks again."""

    abstract = True
    scenario = ""

    def wait_time(self) -> float:
        return float(self.environment.stage.pause())

    @task
    def ask(self) -> None:
        self.environment.stage.ask_next(self.scenario)


class Chat(Asker):
    scenario = "chat"


class Stream(Asker):
    scenario = "stream"


class Session(Asker):
    scenario = "session"


class Embeddings(Asker):
    scenario = "embeddings"


class Rag(Asker):
    scenario = "rag"


class ToolCaller(Asker):
    scenario = "tools"


class Repeater(Asker):
    scenario = "repeat"


class Disconnecter(Asker):
    scenario = "disconnect"


class SlowReaderUser(Asker):
    scenario = "slow_reader"


class Stranger(Asker):
    scenario = "bad_key"


ASKERS: tuple[type[Asker], ...] = (
    Chat, Stream, Session, Embeddings, Rag, ToolCaller, Repeater, Disconnecter, SlowReaderUser, Stranger,
)  # fmt: skip


def user_classes(profile: Profile) -> list[type[User]]:
    """Those that the profile asks for, with its weights."""
    if profile.arrivals != "users":
        return [OpenLoop]
    chosen = profile.scenarios.chosen
    return [
        type(asker.__name__, (asker,), {"weight": chosen[asker.scenario].weight})
        for asker in ASKERS
        if asker.scenario in chosen
    ]
