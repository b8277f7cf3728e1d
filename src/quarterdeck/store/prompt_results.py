"""What the requests of a prompt's versions did, from the ledger."""

from dataclasses import dataclass, fields
from decimal import Decimal

from sqlalchemy import ColumnElement, select

from quarterdeck.record import MIRROR
from quarterdeck.store.database import Database
from quarterdeck.store.ledger_tables import ledger, scores

MAX_ROWS = 10_000
"""Of each version: the newest. More would not change a verdict, and take memory."""


@dataclass(frozen=True, slots=True)
class Result:
    """One request. Times are Unix seconds."""

    id: str
    status: str
    http_status: int
    key: str
    user: str | None
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
        query = select(*[ledger.c[each.name] for each in fields(Result)])
        query = query.where(*_of_version(org, prompt, version, label, since, until))
        async with self._database.report() as connection:
            found = await connection.execute(query.order_by(ledger.c.started.desc()).limit(limit))
            return [Result(*row) for row in found]

    async def scores_of_version(
        self,
        *,
        org: str,
        prompt: str,
        version: int,
        label: str | None = None,
        since: float = 0.0,
        until: float | None = None,
        limit: int = MAX_ROWS,
    ) -> dict[str, list[float]]:
        """Numbers that were given to these requests as feedback or scores, by the score's name."""
        query = (
            select(scores.c.name, scores.c.value)
            .join(ledger, ledger.c.id == scores.c.request)
            .where(
                *_of_version(org, prompt, version, label, since, until),
                scores.c.org == org,
                scores.c.is_confirmed.is_(True),
                scores.c.deleted.is_(None),
                scores.c.value.is_not(None),
            )
            .order_by(ledger.c.started.desc())
            .limit(limit)
        )
        found: dict[str, list[float]] = {}
        async with self._database.report() as connection:
            for name, value in await connection.execute(query):
                found.setdefault(name, []).append(value)
        return found


def _of_version(
    org: str, prompt: str, version: int, label: str | None, since: float, until: float | None
) -> list[ColumnElement[bool]]:
    columns = ledger.c
    conditions = [
        columns.org == org,
        columns.prompt == prompt,
        columns.prompt_version == str(version),
        columns.started >= since,
        columns.key != MIRROR,
    ]
    if label is not None:
        conditions.append(columns.prompt_label == label)
    if until is not None:
        conditions.append(columns.started < until)
    return conditions
