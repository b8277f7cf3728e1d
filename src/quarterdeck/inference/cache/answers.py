"""The cache as the pipeline uses it: before an engine is asked, instead of it, and after its answer.

`AnswerCache.look_up` makes the `Lookup` of a request. The *reserve* script reads its exact entry. If there is none, the
answer of an equal request in flight or of the same question in other words is used (`recall`). Otherwise an engine
answers, and its answer is stored when the request ends: `Lookup.end` must be called, however it ends.
"""

import msgspec

from quarterdeck.inference.cache import entry as entries
from quarterdeck.inference.cache import store
from quarterdeck.inference.cache.entry import Entry
from quarterdeck.inference.cache.key import UNRESTRICTED, CacheQuery, PolicyResolver, make_query, parse_cache_control
from quarterdeck.inference.cache.replay import make_reply
from quarterdeck.inference.cache.semantic import Embed, SemanticCache, SemanticQuery, make_semantic_query
from quarterdeck.inference.cache.single_flight import Flight, Flights
from quarterdeck.inference.cache.write_behind import WriteBehind
from quarterdeck.inference.call import Head, Headers, Reply
from quarterdeck.inference.request import InferenceRequest
from quarterdeck.inference.routing.directory import ServedModel
from quarterdeck.inference.streaming.collector import Collector
from quarterdeck.net.redis import Redis, RedisError, RedisUnavailableError
from quarterdeck.net.tasks import Spawn
from quarterdeck.protocol import sse
from quarterdeck.protocol.requests import GenerationRequest, choice_count
from quarterdeck.record import CacheState, RequestRecord
from quarterdeck.settings.config import Config
from quarterdeck.settings.live import Live

_MISS, _BYPASS = (b"x-cache", b"miss"), (b"x-cache", b"bypass")


class Lookup(msgspec.Struct, eq=False):
    """The cache's part in one request."""

    cache: "AnswerCache"
    org: str
    model: str
    """The resolved model. Answers of a fallback model are not stored."""
    query: CacheQuery | None = None
    """None: the request is not answered from the cache, nor its answer stored."""
    redis_key: str | None = None
    """The key that *reserve* reads. None: no cached answer is accepted."""
    state: CacheState = "bypass"
    """The record's cache state if an engine answers."""
    headers: Headers = (_BYPASS,)
    """The cache headers if an engine answers. `x-cache-key` is what `DELETE /admin/cache` takes."""
    choices: int = 0
    is_capped: bool = False
    """The endpoint was sent a limit that the budget sets. The cache key does not have it, so an answer that it ended
    is not stored for requests with more money."""
    semantic_query: SemanticQuery | None = None
    flight: Flight | None = None
    """The flight that this request leads."""
    collector: Collector | None = None
    """Has the answer, if it is a stream that may be stored."""
    found_key: str = ""
    """The key of another wording's answer, if that was used."""
    body: bytes | None = None
    """The answer, if it is not a stream."""
    content_type: bytes = sse.CONTENT_TYPE

    def read(self, blob: bytes, now: float) -> Entry | None:
        """Decode a stored entry. None: it can't be decoded, or is older than the client accepts."""
        found = entries.decode(blob)
        query = self.query
        if found is None or query is None:
            return None
        max_age = query.control.max_age
        return found if max_age is None or found.age(now) <= max_age else None

    def lead(self) -> bool:
        """True where an engine must be asked: no equal request is in flight, no other wording is known. Others may wait
        for this one from then on. False: call `recall`."""
        query, flights = self.query, self.cache.flights
        if query is None:
            return True
        if query.control.reads and (self.semantic_query is not None or query.key in flights):
            return False
        if query.control.stores:
            self.flight = flights.begin(query.key)
        return True

    async def recall(self, now: float) -> Entry | None:
        """The answer of an equal request in flight or of another wording, where `lead` returned False. None: ask an
        engine; others may wait for this one from then on."""
        query = self.query
        if query is None:
            return None
        flight = self.cache.flights.get(query.key)
        if flight is not None and (found := await flight.wait(query.policy.settings.wait_seconds)) is not None:
            return found
        if self.semantic_query is not None:
            found = await self._find_wording(self.semantic_query, now)
            if found is not None:
                return found
        if query.control.stores:
            self.flight = self.cache.flights.begin(query.key)
        return None

    async def _find_wording(self, semantic_query: SemanticQuery, now: float) -> Entry | None:
        semantic = self.cache.semantic
        key = await semantic.find(semantic_query)
        if key is None:
            return None
        try:
            blob = await store.fetch(self.cache.redis, self.org, key)
        except (RedisUnavailableError, RedisError):
            return None
        if blob is None:
            semantic.forget(semantic_query, key)
            return None
        found = self.read(blob, now)
        if found is not None:
            self.found_key = key
        return found

    def replay(self, found: Entry, now: float, *, shows_usage: bool, headers: Headers) -> Reply:
        """The cached answer, with additional `headers`."""
        key = self.found_key or (self.query.key if self.query else "")
        return make_reply(found, now, shows_usage=shows_usage, headers=((b"x-cache-key", key.encode()), *headers))

    def collect(self) -> Collector | None:
        """The collector for an engine's stream. None: it will not be stored."""
        flight = self.flight
        if flight is not None and self.query is not None:
            self.collector = Collector(self.query.policy.max_bytes, lambda: flight.end(None))
        return self.collector

    def take(self, body: bytes, content_type: bytes) -> None:
        """Keep an engine's answer that is not a stream."""
        self.body, self.content_type = body, content_type

    def check_weights(self, weights: str) -> None:
        """The weights that answer, where they are known. An answer of others than those of the key is not stored."""
        if weights and self.query is not None and self.query.policy.weights not in (weights, ""):
            self.give_up()

    def give_up(self) -> None:
        """There will be no answer to store. Followers continue at once, before the record is settled."""
        if self.flight is not None:
            self.flight.end(None)
            self.flight = None

    def end(self, record: RequestRecord) -> None:
        """The request has ended: complete its record, answer the followers and store the answer. Idempotent."""
        if record.cache == "off":
            record.cache = self.state
        flight, query = self.flight, self.query
        if flight is None or query is None:
            return
        self.flight = None
        body = self.body if self.collector is None else self.collector.body()
        entry = None
        is_cut = self.is_capped and (self.choices != 1 or record.finish_reason == "length")
        if body is not None and len(body) <= query.policy.max_bytes and record.model == self.model and not is_cut:
            entry = entries.make_entry(record, body, self.content_type, choices=self.choices)
        flight.end(entry)
        if entry is not None:
            cache = self.cache
            cache.writes.put(self.org, query, entry, max_mb=cache.max_mb, semantic_query=self.semantic_query)


class AnswerCache:
    """The cache of one gateway. `spawn` starts writes that can't be sent at once."""

    def __init__(self, config: Live[Config], redis: Redis, *, embed: Embed, spawn: Spawn) -> None:
        self.redis = redis
        self.flights = Flights()
        self.semantic = SemanticCache(embed, max_entries=config.current.cache.semantic_entries)
        self.writes = WriteBehind(redis, self.semantic, spawn)
        self._adopt(config.current)
        config.subscribe(self._adopt)

    def _adopt(self, config: Config) -> None:
        """Requests in progress keep their policies; the semantic index is emptied."""
        self._policies = PolicyResolver(config)
        self.is_on = not self._policies.is_off
        """Whether any model's answers are cached."""
        self.max_mb = config.cache.max_mb
        self.semantic.max_entries = config.cache.semantic_entries
        self.semantic.clear()

    def look_up(
        self,
        head: Head,
        request: InferenceRequest,
        served: ServedModel,
        *,
        weights: str = "",
        prompt_version: str = "",
    ) -> Lookup | None:
        """The lookup of a request. None: its model is not cached. `weights`: what identifies them at the endpoints."""
        parsed, members = request.parsed, request.members
        policy = self._policies.resolve(parsed.model, served, weights)
        if policy is None:
            return None
        control = UNRESTRICTED
        if head.cache_control or "cache" in members:
            control = parse_cache_control(head.cache_control, members.get("cache"))
        query = make_query(policy, head, request, control=control, prompt_version=prompt_version)
        org = head.principal.org
        if query is None:
            return Lookup(self, org, served.name)
        key_header = (b"x-cache-key", query.key.encode())
        if control.reads:
            redis_key = store.entry_key(org, query.key)
            lookup = Lookup(self, org, served.name, query, redis_key, "miss", (_MISS, key_header))
        else:
            lookup = Lookup(self, org, served.name, query, headers=(_BYPASS, key_header))
        if isinstance(parsed, GenerationRequest):
            lookup.choices = choice_count(parsed) or 1
            if policy.settings.semantic is not None:
                lookup.semantic_query = make_semantic_query(query, head, request, prompt_version=prompt_version)
        return lookup
