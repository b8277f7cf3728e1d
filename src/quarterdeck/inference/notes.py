"""What Redis is told of a request before it runs, cheaply: enough for the worker to bill it should the gateway die.

A note is a `Note` of admission in JSON. All of it but the id and the times is the same for each request of one key to
one model, so that is encoded once. What else the record holds comes with the first renewal (`Settlement`), a third of a
lease later.
"""

import msgspec

from quarterdeck.inference.calls import Operation
from quarterdeck.inference.directory import Served
from quarterdeck.inference.principal import Principal

MOST = 10_000
"""Heads kept, some 500 bytes each. Then all are forgotten: they are made again in microseconds."""


def note_head(principal: Principal, served: Served, operation: Operation) -> bytes:
    """The part that is the same for all requests; `note_of` ends it."""
    price = served.price
    record = {
        "org": principal.org,
        "team": principal.team,
        "key": principal.key,
        "key_name": principal.name,
        "operation": operation.word,
        "model": served.name,
        "status": "lost",
        "http_status": 0,
        "price_version": served.price_version,
        "price_input": price.input,
        "price_cached": price.cached,
        "price_output": price.output,
        "priority": principal.priority,
        "tags": principal.tags,
    }
    return msgspec.json.encode({"scopes": principal.counters.noted, "record": record}).removesuffix(b"}}")


def note_of(head: bytes, request_id: str, started: float, *, stream: bool = False) -> bytes:
    """The note of one request; to the microsecond, as a float written to its last digit costs twice the rest."""
    time = f"{started:.6f}"
    streamed = ',"stream":true' if stream else ""
    return head + f',"id":"{request_id}","started":{time},"ended":{time}{streamed}}}}}'.encode()


class NoteHeads:
    """Heads made once, for as long as principal and model are the same objects."""

    __slots__ = ("_heads",)

    def __init__(self) -> None:
        self._heads: dict[tuple[str, str, Operation], tuple[Principal, Served, bytes]] = {}

    def of(self, principal: Principal, served: Served, operation: Operation) -> bytes:
        key = (principal.key, served.name, operation)
        found = self._heads.get(key)
        if found is not None and found[0] is principal and found[1] is served:
            return found[2]
        if len(self._heads) >= MOST:
            self._heads.clear()
        head = note_head(principal, served, operation)
        self._heads[key] = (principal, served, head)
        return head
