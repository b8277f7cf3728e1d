"""Removes traces from the queues of the sinks whose contents were deleted.

A batch that holds contents says which requests its traces are of (`TraceBatch.about`). A trace is removed whole: its
record is in the ledger. One that is being sent at this moment is sent.
"""

import logging
import zlib
from collections.abc import Sequence

import msgspec

from quarterdeck.net.lua_scripts import PackagedScript
from quarterdeck.net.redis import Redis
from quarterdeck.store.contents import Deletion
from quarterdeck.telemetry.traces.batches import About, TraceBatch, pack
from quarterdeck.worker.streams import traces_key, traces_size_key

log = logging.getLogger(__name__)

ENTRIES_AT_ONCE = 20
"""Some MB."""
_REPLACE = PackagedScript("quarterdeck.worker", "replace_traces")


async def delete_waiting_traces(redis: Redis, org: str, sink: str, deletions: Sequence[Deletion]) -> int:
    """Remove the traces that the deletions cover. Returns how many. Raises as Redis does."""
    removed, first, key = 0, b"-", traces_key(org, sink)
    while entries := await redis.call("XRANGE", key, first, "+", "COUNT", ENTRIES_AT_ONCE):
        for entry_id, fields in entries:
            named = dict(zip(fields[::2], fields[1::2], strict=True))
            if about := named.get(b"about"):
                removed += await _delete_in(redis, org, sink, entry_id, named, about, deletions)
        milliseconds, _, number = entries[-1][0].partition(b"-")
        first = b"%s-%d" % (milliseconds, int(number) + 1)
    return removed


async def _delete_in(
    redis: Redis,
    org: str,
    sink: str,
    entry_id: bytes,
    named: dict[bytes, bytes],
    about: bytes,
    deletions: Sequence[Deletion],
) -> int:
    try:
        requests = msgspec.json.decode(about, type=list[About])
        covered = [any(each.covers_request(org, *request) for each in deletions) for request in requests]
        if not any(covered):
            return 0
        traces = TraceBatch.read(named[b"meta"], named[b"data"]).unpacked()
        kept = [at for at, is_covered in enumerate(covered) if not is_covered]
        left = pack([traces[at] for at in kept], [requests[at] for at in kept]) if kept else None
    except (msgspec.DecodeError, ValueError, KeyError, IndexError, zlib.error):
        log.error("unreadable traces with contents removed", extra={"org": org, "entry": entry_id.decode()})
        covered, left = [True], None
    new: tuple[int, bytes, bytes, bytes] = (0, b"", b"", b"")
    if left is not None:
        new = (left.traces, left.meta, left.data, left.about)
    arguments = (entry_id, named.get(b"traces", b"0"), len(named.get(b"data", b"")), *new)
    done = await redis.run(_REPLACE, (traces_key(org, sink), traces_size_key(org, sink)), arguments)
    return sum(covered) if done else 0
