"""Rolls a canary of a prompt back when it breaks a bound of its guard, and records why.

Only requests count that the label led to, since it was last changed. A label that an admin changes meanwhile is left
alone: the rollback checks that it is still what was judged, so several workers do no harm either.
"""

import asyncio
import logging

from quarterdeck.errors import ConflictError, NotFoundError
from quarterdeck.resources.prompts.changes import PromptAnnouncer, PromptChange
from quarterdeck.resources.prompts.comparison import broken_bound
from quarterdeck.resources.prompts.sampling import Observed, samples_of
from quarterdeck.store.prompt_results import PromptResults
from quarterdeck.store.prompt_rows import LabelRow, PromptRow
from quarterdeck.store.prompts import PromptStore
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker.conditions import Condition
from quarterdeck.worker.org_loop import OrgLoop

log = logging.getLogger(__name__)

GUARD_SECONDS = 10.0
"""Between two looks. Short beside the time that a canary needs for its first fifty requests."""
MAX_ROWS = 5000
"""Of each version: its newest requests."""
AUTHOR = "worker"
"""Of the event."""


class PromptGuardLoop(OrgLoop):
    """Visits all organisations at once: a turn without guarded labels is one query."""

    def __init__(
        self,
        prompts: PromptStore,
        results: PromptResults,
        announcer: PromptAnnouncer,
        condition: Condition,
        metrics: WorkerMetrics,
    ) -> None:
        super().__init__(lambda: ("*",), condition, GUARD_SECONDS)
        self._prompts = prompts
        self._results = results
        self._announcer = announcer
        self._metrics = metrics

    async def _visit(self, org: str) -> None:
        labels = await self._prompts.guarded_labels()
        if not labels:
            return
        rows = {row.id: row for row in await self._prompts.retrieve_all([each.prompt for each in labels])}
        for label in labels:
            prompt = rows.get(label.prompt)
            if prompt is not None:
                await self._judge(prompt, label)

    async def _judge(self, prompt: PromptRow, label: LabelRow) -> None:
        guard, targets = label.spec.guard, label.spec.targets
        if guard is None:
            return
        baseline = await self._results_of(prompt, label, targets[0].version)
        for target in targets[1:]:
            candidate = await self._results_of(prompt, label, target.version)
            reason = await asyncio.to_thread(broken_bound, guard, *samples_of(baseline, candidate))
            if reason is not None:
                await self._roll_back(prompt, label, targets[0].version, reason)
                return

    async def _results_of(self, prompt: PromptRow, label: LabelRow, version: int) -> Observed:
        results = await self._results.of_version(
            org=prompt.org, prompt=prompt.name, version=version, label=label.label, since=label.updated, limit=MAX_ROWS
        )
        return Observed(version, results)

    async def _roll_back(self, prompt: PromptRow, label: LabelRow, version: int, reason: str) -> None:
        try:
            await self._prompts.roll_back(
                prompt.id,
                label.label,
                org=prompt.org,
                author=AUTHOR,
                version=version,
                reason=f"broken bound: {reason}",
                since=label.updated,
            )
        except (ConflictError, NotFoundError) as error:  # an admin or another worker was first
            log.info("not rolled back: %s", error.message)
            return
        self._metrics.prompt_rollbacks.add()
        log.warning(
            "rolled back the label %s of prompt %s to version %d: %s",
            *(label.label, prompt.name, version, reason),
            extra={"org": prompt.org},
        )
        await self._announcer.announce(PromptChange(prompt.org, prompt.id))
