"""Confirms scores whose requests have reached the ledger, and exports them to Langfuse where that is set up.

The table is the outbox: a score is marked when the server has it, and one that the server has already is replaced, so a
worker that dies in between repeats itself without harm.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from quarterdeck.store.scores import Score, ScoreStore
from quarterdeck.telemetry.langfuse_scores import ScoreRefusedError, ScoreSinkError
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker.conditions import Condition
from quarterdeck.worker.org_loop import OrgLoop, Orgs

log = logging.getLogger(__name__)

SCORE_SECONDS = 5.0
"""Between two turns: how long a score may wait. An empty turn is three look-ups in partial indexes for each org."""
PENDING_SECONDS = 2 * 86_400.0
"""How long a score waits for its request: longer than a record waits in Redis or in a spool."""


class ScoreSink(Protocol):
    """Blocking. Both raise ScoreSinkError and ScoreRefusedError."""

    def put(self, score: dict[str, Any]) -> None: ...

    def delete(self, id: str) -> None: ...


class ScoreLoop(OrgLoop):
    """`sink` of None: scores stay here. `sink_condition` is that of the server."""

    def __init__(
        self,
        store: ScoreStore,
        orgs: Orgs,
        condition: Condition,
        metrics: WorkerMetrics,
        *,
        sink: ScoreSink | None = None,
        sink_condition: Condition | None = None,
        environment: Callable[[], str] = lambda: "default",
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(orgs, condition, SCORE_SECONDS)
        self._store = store
        self._metrics = metrics
        self._sink = sink
        self._sink_condition = sink_condition or Condition("the score sink")
        self._environment = environment
        self._wall = wall

    async def _visit(self, org: str) -> None:
        await self._store.confirm(org=org, before=self._wall() - PENDING_SECONDS)
        if self._sink is None:
            await self._store.remove_deleted(org=org)
            return
        try:
            for score, trace_id in await self._store.to_export(org=org):
                await self._export(self._sink, score, trace_id)
            self._sink_condition.ok()
        except ScoreSinkError as error:
            self._sink_condition.failed(str(error))

    async def _export(self, sink: ScoreSink, score: Score, trace_id: str) -> None:
        """Raises ScoreSinkError. One that the server refuses is not sent again until it changes."""
        try:
            if score.deleted is None:
                await asyncio.to_thread(sink.put, langfuse_score(score, trace_id, self._environment()))
            elif score.exported is not None:
                await asyncio.to_thread(sink.delete, score.id)
            self._metrics.scores_exported.add(("delivered",))
        except ScoreRefusedError as error:
            self._metrics.scores_exported.add(("refused",))
            log.error("score refused: %s", error, extra={"score": score.id})
        if score.deleted is None:
            await self._store.mark_exported(score)
        else:
            await self._store.remove([score.id], org=score.org)


def langfuse_score(score: Score, trace_id: str, environment: str) -> dict[str, Any]:
    """A score as Langfuse takes it. Pure. A value is required there: a mere comment has the category `comment`."""
    kinds = {"boolean": "BOOLEAN", "numeric": "NUMERIC"}
    is_number = score.kind in kinds
    found: dict[str, Any] = {
        "id": score.id,
        "traceId": trace_id,
        "name": score.name,
        "dataType": kinds.get(score.kind or "", "CATEGORICAL"),
        "value": score.value if is_number else score.category or "comment",
        "environment": environment,
        "metadata": {"source": score.source, "team": score.team, **({"user": score.user} if score.user else {})},
    }
    if score.comment:
        found["comment"] = score.comment
    return found
