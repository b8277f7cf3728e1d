"""The cache as the pipeline uses it: before an engine is asked, instead of it, and after.

`AnswerCache.look` says what a request is to the cache. *reserve* reads the exact entry; what it found, or an equal
request under way, or the same question in other words answers instead of an engine (`recall`). A request that goes to
an engine leaves its answer behind when it ends: `Lookup.end` must be called, however it ends.
"""

import msgspec

from quarterdeck.inference.cache import entry as entries
from quarterdeck.inference.cache import store
from quarterdeck.inference.cache.entry import Entry
from quarterdeck.inference.cache.flights import Flight, Flights
from quarterdeck.inference.cache.keeping import Keeping
from quarterdeck.inference.cache.key import FREELY, Plans, Question, ask, control_of
from quarterdeck.inference.cache.semantic import Asked, Embed, SemanticCache, asked_of
from quarterdeck.inference.call import Head, Headers, Reply
from quarterdeck.inference.request import InferenceRequest
from quarterdeck.inference.routing.directory import ServedModel
from quarterdeck.inference.streaming.collector import Collector
from quarterdeck.net.redis import Redis, RedisError, RedisUnavailableError
from quarterdeck.net.tasks import Spawn
from quarterdeck.protocol import sse
from quarterdeck.protocol.requests import Generation, choice_count
from quarterdeck.record import CacheState, RequestRecord
from quarterdeck.settings.config import Config
from quarterdeck.settings.live import Live

_MISS, _BYPASS = (b"x-cache", b"miss"), (b"x-cache", b"bypass")


class Lookup(msgspec.Struct, eq=False):
    """One request and what the cache has to do with it."""

    cache: "AnswerCache"
    org: str
    model: str
    """Who is meant to answer; what a fallback says in its place is not kept."""
    question: Question | None = None
    """None: it is not answered from the cache, nor kept."""
    key: str | None = None
    """What may be read; None: nothing."""
    redis_key: str | None = None
    """What *reserve* shall look for; None: nothing."""
    state: CacheState = "bypass"
    """What the record of an answer from an engine says."""
    headers: Headers = (_BYPASS,)
    """What an answer from an engine says of the cache; the key is what `DELETE /admin/cache` takes."""
    choices: int = 0
    asked: Asked | None = None
    flight: Flight | None = None
    """The one that it leads."""
    collector: Collector | None = None
    """Keeps a stream's pieces as they pass."""
    found_key: str = ""
    """Whose answer it was given, where that was another question's."""
    body: bytes | None = None
    """The whole answer, where it was no stream."""
    content_type: bytes = sse.CONTENT_TYPE

    def read(self, blob: bytes, now: float) -> Entry | None:
        """What *reserve* found; None where it won't do and must be asked for as if nothing had been found."""
        found = entries.decode(blob)
        question = self.question
        if found is None or question is None:
            return None
        most = question.control.max_age
        return found if most is None or found.age(now) <= most else None

    def lead(self) -> bool:
        """True where an engine must be asked: no equal request is in flight, no other wording is known. Others may wait
        for this one from then on. False: call `recall`."""
        question, flights = self.question, self.cache.flights
        if question is None:
            return True
        if question.control.reads and (self.asked is not None or question.key in flights):
            return False
        if question.control.stores:
            self.flight = flights.begin(question.key)
        return True

    async def recall(self, now: float) -> Entry | None:
        """The answer of an equal request in flight or of another wording, where `lead` returned False. None: ask an
        engine; others may wait for this one from then on."""
        question = self.question
        if question is None:
            return None
        flight = self.cache.flights.get(question.key)
        if flight is not None and (found := await flight.wait(question.plan.policy.wait_seconds)) is not None:
            return found
        if self.asked is not None and (found := await self._in_other_words(self.asked, now)) is not None:
            return found
        if question.control.stores:
            self.flight = self.cache.flights.begin(question.key)
        return None

    async def _in_other_words(self, asked: Asked, now: float) -> Entry | None:
        semantic = self.cache.semantic
        key = await semantic.find(asked)
        if key is None:
            return None
        try:
            blob = await store.fetch(self.cache.redis, self.org, key)
        except (RedisUnavailableError, RedisError):
            return None
        found = self.read(blob, now) if blob is not None else None
        if blob is None:
            semantic.forget(asked, key)
        if found is not None:
            self.found_key = key
        return found

    def replay(self, found: Entry, now: float, *, shows_usage: bool, headers: Headers) -> Reply:
        """What was found, once more; `headers` are the answer's others."""
        key = self.found_key or (self.question.key if self.question else "")
        return entries.replay(found, now, shows_usage=shows_usage, headers=((b"x-cache-key", key.encode()), *headers))

    def collect(self) -> Collector | None:
        """What shall see the stream's pieces; None: nobody keeps them."""
        flight = self.flight
        if flight is not None and self.question is not None:
            self.collector = Collector(self.question.plan.most, lambda: flight.end(None))
        return self.collector

    def take(self, body: bytes, content_type: bytes) -> None:
        """The whole answer, where it is no stream."""
        self.body, self.content_type = body, content_type

    def give_up(self) -> None:
        """There will be no answer to keep. Nobody need wait for the record to hear it."""
        if self.flight is not None:
            self.flight.end(None)
            self.flight = None

    def end(self, record: RequestRecord) -> None:
        """The request is over: its record is told what the cache had to do with it, its answer kept if it may be.
        Repeatable."""
        if record.cache == "off":
            record.cache = self.state
        flight, question = self.flight, self.question
        if flight is None or question is None:
            return
        self.flight = None
        body = self.body if self.collector is None else self.collector.body()
        found = None
        if body is not None and len(body) <= question.plan.most and record.model == self.model:
            found = entries.entry_of(record, body, self.content_type, choices=self.choices)
        flight.end(found)
        if found is not None:
            cache = self.cache
            cache.keeping.keep(self.org, question, found, max_mb=cache.max_mb, asked=self.asked)


class AnswerCache:
    """One gateway's. `spawn` runs what may go on after a request is over."""

    def __init__(self, config: Live[Config], redis: Redis, *, embed: Embed, spawn: Spawn) -> None:
        self.redis = redis
        self.flights = Flights()
        self.semantic = SemanticCache(embed, most=config.current.cache.semantic_entries)
        self.keeping = Keeping(redis, self.semantic, spawn)
        self._adopt(config.current)
        config.subscribe(self._adopt)

    def _adopt(self, config: Config) -> None:
        """Requests in progress keep their plans; the semantic index is emptied."""
        self.plans = Plans(config)
        self.max_mb = config.cache.max_mb
        self.semantic.most = config.cache.semantic_entries
        self.semantic.clear()

    def look(
        self,
        head: Head,
        request: InferenceRequest,
        served: ServedModel,
        *,
        prompt_version: str = "",
    ) -> Lookup | None:
        """What the request is to the cache. None: its model's answers are not
        kept."""
        parsed, members = request.parsed, request.members
        plan = self.plans.plan(parsed.model, served)
        if plan is None:
            return None
        control = FREELY
        if head.cache_control or "cache" in members:
            control = control_of(head.cache_control, members.get("cache"))
        question = ask(plan, head, parsed, members, control=control, prompt_version=prompt_version)
        org = head.principal.org
        if question is None:
            return Lookup(self, org, served.name)
        key = question.key
        told = (b"x-cache-key", key.encode())
        if control.reads:
            redis_key = store.entry_key(org, key)
            lookup = Lookup(self, org, served.name, question, key, redis_key, "miss", (_MISS, told))
        else:
            lookup = Lookup(self, org, served.name, question, headers=(_BYPASS, told))
        if isinstance(parsed, Generation):
            lookup.choices = choice_count(parsed) or 1
            if plan.policy.semantic is not None:
                lookup.asked = asked_of(question, head, parsed, members, prompt_version=prompt_version)
        return lookup
