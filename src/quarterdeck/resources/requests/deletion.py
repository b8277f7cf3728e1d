"""Deletes the inputs and outputs of a request, a user or a session, wherever they are.

In the database at once, with a note of the deletion that outlives it; from Redis where they still wait for the worker.
What a gateway holds or has written to its spool is dropped by the worker when it arrives (`store/contents`). A span
that has been exported is out of reach: it is deleted at the trace backend.
"""

import logging
from collections.abc import Iterator, Sequence

import msgspec

from quarterdeck.accounting.redis_keys import content_key, stream_key
from quarterdeck.net.redis import Redis, RedisError, RedisUnavailableError
from quarterdeck.record import RequestRecord, decode
from quarterdeck.store.contents import ContentStore, DeleteBy, Deletion
from quarterdeck.store.stored_objects import StoredObjects

log = logging.getLogger(__name__)

ENTRIES_AT_ONCE = 500


class ContentDeletion:
    """`delete` may be called again: a repetition finds nothing more."""

    def __init__(self, store: ContentStore, objects: StoredObjects, redis: Redis) -> None:
        self._store = store
        self._objects = objects
        self._redis = redis

    async def delete(self, by: DeleteBy, value: str, *, org: str, key: str) -> int:
        """Returns how many contents, stored or waiting, responses and stored chat completions were deleted. `key`: the
        id of the key that asks.

        Raises as the database does. Where Redis is away, what waits there is dropped by the worker.
        """
        deletion, count = await self._store.delete(by, value, org=org, key=key)
        count += await self._objects.apply(deletion)
        try:
            count += await self._delete_waiting(deletion)
        except (RedisUnavailableError, RedisError) as error:
            log.warning("could not delete contents that wait in Redis; the worker will drop them: %s", error)
        return count

    async def _delete_waiting(self, deletion: Deletion) -> int:
        if deletion.by == "request":
            return int(await self._redis.call("UNLINK", content_key(deletion.org, deletion.value)))
        count, first = 0, b"-"
        while entries := await self._redis.call(
            "XRANGE", stream_key(deletion.org), first, "+", "COUNT", ENTRIES_AT_ONCE
        ):
            covered = [
                content_key(record.org, record.id)
                for record in _records(entries)
                if record.content != "off" and deletion.covers(record)
            ]
            if covered:
                count += int(await self._redis.call("UNLINK", *covered))
            milliseconds, _, number = entries[-1][0].partition(b"-")
            first = b"%s-%d" % (milliseconds, int(number) + 1)
        return count


def _records(entries: Sequence[tuple[bytes, list[bytes]]]) -> Iterator[RequestRecord]:
    for _, fields in entries:
        try:
            yield decode(fields[1])
        except (msgspec.DecodeError, UnicodeDecodeError, IndexError):  # the worker sets it aside
            continue
