"""What goes with responses that are deleted, besides their items: stored steps, jobs, locks."""

from collections.abc import Sequence

from sqlalchemy import delete, update

from quarterdeck.store.database import Transaction
from quarterdeck.store.jobs import JobStore
from quarterdeck.store.response_tables import conversations, response_steps


async def forget_on(transaction: Transaction, org: str, ids: Sequence[str], jobs: JobStore) -> None:
    """A background response that runs is stopped: its execution finds no row."""
    await forget_steps(transaction, ids)
    await jobs.cancel_on(transaction, org, ids)
    locked = update(conversations).where(conversations.c.locked_by.in_(ids))
    await transaction.execute(locked.values(locked_by=None, locked_until=None))


async def forget_steps(transaction: Transaction, ids: Sequence[str]) -> None:
    await transaction.execute(delete(response_steps).where(response_steps.c.response.in_(ids)))
