"""Configurations, records and entries of the cache's tests."""

from typing import Any

from tests.inference.making import DONE, delta, usage
from tests.records import a_record

from quarterdeck.accounting.principal import Principal
from quarterdeck.inference.cache import store
from quarterdeck.inference.cache.entry import Entry, make_entry
from quarterdeck.inference.cache.key import PolicyResolver, ResolvedPolicy
from quarterdeck.inference.routing.directory import Directory
from quarterdeck.net.redis import Redis
from quarterdeck.record import RequestRecord
from quarterdeck.settings.config import Config
from quarterdeck.settings.limits import Limits
from quarterdeck.settings.loading import parse

MODELS = """
models:
  - {name: m, aliases: [gpt], endpoints: [{url: "http://one"}]}
  - {name: other, endpoints: [{url: "http://two"}]}
"""
SSE = b"text/event-stream"
STREAM = delta("Hel") + delta("lo") + delta(finish="stop") + usage() + DONE
ALICE = Principal("key_a", "a", "default", "red", Limits())


def config(cache: str = "{default: {exact: true}}", models: str = MODELS) -> Config:
    return parse(f"{models}\ncache: {cache}")


def policy_of(config: Config, name: str = "m") -> ResolvedPolicy | None:
    served = Directory.of(config).names.get(name)
    assert served is not None
    return PolicyResolver(config).resolve(name, served)


def a_finished(**changes: Any) -> RequestRecord:
    """The record of a stream that one endpoint completed."""
    return a_record(**({"resumed": 0} | changes))


def stream_entry(body: bytes = STREAM, **changes: Any) -> Entry | None:
    return make_entry(a_finished(**changes), body, SSE)


def kept(entry: Entry | None) -> Entry:
    assert entry is not None
    return entry


async def store_entry(redis: Redis, org: str, key: str, entry: Entry, *, ttl_seconds: float, max_mb: float) -> bool:
    """Store one entry. False: there is no room for it."""
    prefix = store.command_prefix(org, entry.model, ttl_seconds, max_mb)
    command = store.store_command(prefix, [store.pack_entry(key, entry)])
    (is_stored,) = await redis.execute(store.STORE, command, org)
    return bool(is_stored)
