"""What the requests of a prompt's versions did, from the ledger."""

from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import select

from quarterdeck.record import MIRROR
from quarterdeck.store.database import Database
from quarterdeck.store.tables import ledger

MAX_ROWS = 10_000
"""Of each version: the newest. More would not change a verdict, and take memory."""


@dataclass(frozen=True, slots=True)
class Result:
    """One request. Times are Unix seconds."""

    id: str
    status: str
    cache: str
    cost: Decimal
    started: float
    ended: float


class PromptResults:
    """Read by comparisons, over the index of rows with a prompt."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of_version(
        self,
        *,
        org: str,
        prompt: str,
        version: int,
        label: str | None = None,
        since: float = 0.0,
        until: float | None = None,
        limit: int = MAX_ROWS,
    ) -> list[Result]:
        """The newest requests of a version of the prompt with this name, without mirrored ones. `label`: only those
        that it led to. Raises as `Database.report`."""
        columns = ledger.c
        query = select(columns.id, columns.status, columns.cache, columns.cost, columns.started, columns.ended).where(
            columns.org == org,
            columns.prompt == prompt,
            columns.prompt_version == str(version),
            columns.started >= since,
            columns.key != MIRROR,
        )
        if label is not None:
            query = query.where(columns.prompt_label == label)
        if until is not None:
            query = query.where(columns.started < until)
        query = query.order_by(columns.started.desc()).limit(limit)
        async with self._database.report() as connection:
            return [Result(*row) for row in await connection.execute(query)]
