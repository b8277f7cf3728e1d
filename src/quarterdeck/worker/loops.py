"""What a worker does, over and over: records to rows, rows' records to traces, dead gateways' requests to records.

Each loop goes on through every outage: what it could not do stays where it was (in a stream, in a reservation) and is
tried again. They are a door: an error that nobody foresaw is caught here, logged with its trace, and tried again too,
because the records are still there and somebody may put the cause right.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from quarterdeck.accounting import admission
from quarterdeck.net.redis import Redis, RedisError, RedisUnavailableError
from quarterdeck.record import RequestRecord, decode
from quarterdeck.store.database import DatabaseUnavailableError
from quarterdeck.store.ledger import Ledger, RecordRefusedError
from quarterdeck.telemetry.otlp import OTLPError, OTLPExporter, Outcome
from quarterdeck.telemetry.spans import Span, span_of
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker.conditions import Backoff, Condition
from quarterdeck.worker.org_loop import OrgLoop, Orgs
from quarterdeck.worker.streams import Consumer, Entry

log = logging.getLogger(__name__)

BATCH = 256
"""Records in one transaction and one acknowledgement: some ms of the database's time and of Redis'."""
BLOCK_MS = 500
"""How long a read waits for the first record; the longest that a stop waits as well."""
CLAIM_SECONDS = 2.0
"""How often entries of dead workers are looked for."""
TRACES_MOST = 100_000
"""Records that wait for a trace sink, at most; some 100 MB of Redis. Then the oldest give way."""
EXPIRY_SECONDS = 5.0
CLOSE_SECONDS = 3.0
"""What an export under way may still take when the worker stops."""


class StreamLoop:
    """Takes entries in batches, hands them to `_handle`, and keeps a batch until that is done."""

    def __init__(self, consumer: Consumer, blocking: Redis, orgs: Orgs, condition: Condition) -> None:
        self._consumer = consumer
        self._blocking = blocking
        self._orgs = orgs
        self._condition = condition
        self._joined: frozenset[str] = frozenset()
        self._in_hand: list[Entry] = []
        self._claim_at = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; the batch in hand is finished first, unless something it needs is away."""
        backoff = Backoff(stop)
        while not stop.is_set():
            wait = await self._attempt(stop)
            if wait is None:
                backoff.reset()
            else:
                await backoff.pause(wait)
        if not self._in_hand:
            await self._leave()

    async def _attempt(self, stop: asyncio.Event) -> float | None:
        """One batch. None: well; else the seconds to wait at least."""
        try:
            if not self._in_hand:
                self._in_hand = await self._take()
            if self._in_hand:
                await self._handle(self._in_hand, stop)
                self._in_hand = []
            self._condition.good()
        except (RedisUnavailableError, DatabaseUnavailableError) as error:
            self._condition.bad(str(error))
            return 0.0
        except RedisError as error:
            self._joined = frozenset()  # NOGROUP: an emptied Redis; the groups are made again
            self._condition.bad(f"Redis answers {error}")
            return 0.0
        except OTLPError as error:
            self._condition.bad(str(error))
            return error.retry_after or 1.0
        except Exception as error:  # the door: see the module's first lines
            self._condition.bad(f"{type(error).__name__}: {error}", trace=error)
            return 1.0
        return None

    async def _take(self) -> list[Entry]:
        orgs = tuple(self._orgs())
        if not self._joined.issuperset(orgs):
            await self._consumer.join(orgs)
            self._joined = frozenset(orgs)
        now = asyncio.get_running_loop().time()
        if now >= self._claim_at:
            for org in orgs:
                if entries := await self._consumer.claim(org, count=BATCH):
                    return entries
            self._claim_at = now + CLAIM_SECONDS
        return await self._consumer.read(self._blocking, orgs, count=BATCH, block_ms=BLOCK_MS)

    async def _handle(self, entries: list[Entry], stop: asyncio.Event) -> None:
        raise NotImplementedError

    async def _leave(self) -> None:
        try:
            await self._consumer.leave(sorted(self._joined))
        except (RedisUnavailableError, RedisError) as error:
            log.info("left without taking the consumer's name off: %s", error)  # another worker does, a day later


class LedgerLoop(StreamLoop):
    """Records become rows. Inserted and committed first, acknowledged after: nothing is lost, and a second delivery
    meets the primary key."""

    def __init__(
        self,
        consumer: Consumer,
        blocking: Redis,
        orgs: Orgs,
        condition: Condition,
        *,
        ledger: Ledger,
        metrics: WorkerMetrics,
        traces: int = 0,
    ) -> None:
        """`traces`: how many records may wait for the trace sink; 0: there is none."""
        super().__init__(consumer, blocking, orgs, condition)
        self._ledger = ledger
        self._metrics = metrics
        self._traces = traces

    async def _handle(self, entries: list[Entry], stop: asyncio.Event) -> None:
        clock = asyncio.get_running_loop().time
        started = clock()
        readable: list[tuple[Entry, RequestRecord]] = []
        for entry in entries:
            record, trouble = _read(entry)
            if record is None:
                await self._bury(entry, "unreadable", trouble)
            else:
                readable.append((entry, record))
        entered = await self._insert(readable)
        for org, ids in _by_org(entered).items():
            dropped = await self._consumer.commit(org, ids, traces=self._traces)
            if dropped:
                self._metrics.traces_dropped.add(("overflow",), dropped)
        self._metrics.batch_seconds.observe(clock() - started)

    async def _insert(self, batch: Sequence[tuple[Entry, RequestRecord]]) -> list[Entry]:
        """Enter all that can be; one that can't is found by halving, and set aside. Returns whose rows are there."""
        if not batch:
            return []
        try:
            new = await self._ledger.insert(record for _, record in batch)
        except RecordRefusedError as error:
            if len(batch) == 1:
                await self._bury(batch[0][0], "refused", str(error))
                return []
            middle = len(batch) // 2
            return [*await self._insert(batch[:middle]), *await self._insert(batch[middle:])]
        self._metrics.rows.add(amount=new)
        self._metrics.duplicates.add(amount=len(batch) - new)
        return [entry for entry, _ in batch]

    async def _bury(self, entry: Entry, kind: str, reason: str) -> None:
        if await self._consumer.bury(entry, f"{kind}: {reason}"):
            self._metrics.dead.add((kind,))
            log.error("a record was set aside: %s", reason, extra={"org": entry.org, "entry": entry.id.decode()})


class TraceLoop(StreamLoop):
    """Records that are in the ledger become spans. Exports run in a thread: encoding and a slow sink cost the ledger
    nothing."""

    def __init__(
        self,
        consumer: Consumer,
        blocking: Redis,
        orgs: Orgs,
        condition: Condition,
        *,
        exporter: OTLPExporter,
        environment: str,
        metrics: WorkerMetrics,
    ) -> None:
        super().__init__(consumer, blocking, orgs, condition)
        self._exporter = exporter
        self._environment = environment
        self._metrics = metrics
        self._pool = ThreadPoolExecutor(1, "otlp")
        self._refusals = Condition("the trace sink's judgement")

    async def run(self, stop: asyncio.Event) -> None:
        try:
            await super().run(stop)
        finally:
            self._exporter.close()
            self._pool.submit(self._exporter.hang_up)
            self._pool.shutdown()

    async def _handle(self, entries: list[Entry], stop: asyncio.Event) -> None:
        spans = []
        for entry in entries:
            if entry.data is None:
                continue  # trimmed while it waited; counted when it was
            record, trouble = _read(entry)
            if record is None:
                self._metrics.traces_dropped.add(("unreadable",))
                log.error("a record has no span: %s", trouble, extra={"org": entry.org, "entry": entry.id.decode()})
            else:
                spans.append(span_of(record, environment=self._environment))
        outcome = await self._export(spans, stop)
        self._metrics.traces_exported.add(amount=outcome.delivered)
        if outcome.refused:
            self._metrics.traces_dropped.add(("refused",), outcome.refused)
            self._refusals.bad(f"{outcome.refused} of {len(spans)} spans were refused for ever: {outcome.reason}")
        elif spans:
            self._refusals.good()
        for org, ids in _by_org(entries).items():
            await self._consumer.commit(org, ids)

    async def _export(self, spans: list[Span], stop: asyncio.Event) -> Outcome:
        """Wait for the thread; when the worker stops, only a little longer."""
        closing = asyncio.create_task(self._close_soon_after(stop))
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._exporter.export, spans)
        finally:
            closing.cancel()

    async def _close_soon_after(self, stop: asyncio.Event) -> None:
        await stop.wait()
        await asyncio.sleep(CLOSE_SECONDS)
        self._exporter.close()


class ExpiryLoop(OrgLoop):
    """Requests whose gateway died become records, `lost`."""

    def __init__(self, redis: Redis, orgs: Orgs, condition: Condition, metrics: WorkerMetrics) -> None:
        super().__init__(orgs, condition)
        self.seconds = EXPIRY_SECONDS
        self._redis = redis
        self._metrics = metrics

    async def _visit(self, org: str) -> None:
        # It takes so many at a time; more may wait.
        while count := await admission.settle_expired(self._redis, org):
            self._metrics.lost.add(amount=count)
            log.warning("settled %d requests of a gateway that is gone", count, extra={"org": org})


def _read(entry: Entry) -> tuple[RequestRecord | None, str]:
    """The record, or None and why not."""
    if entry.data is None:
        return None, "the entry has no field 'record'"
    try:
        return decode(entry.data), ""
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return None, str(error)


def _by_org(entries: Sequence[Entry]) -> dict[str, list[bytes]]:
    ids: dict[str, list[bytes]] = defaultdict(list)
    for entry in entries:
        ids[entry.org].append(entry.id)
    return ids
