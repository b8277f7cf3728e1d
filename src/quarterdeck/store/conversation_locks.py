"""The lock of a conversation: one response at a time is made in it, so that items of two never mix.

A lock is a lease. A gateway renews those of its responses; one that was killed holds them no longer than that. A
background response holds its lock until it ends, on any gateway.
"""

import time
from collections.abc import Callable, Mapping

from sqlalchemy import or_, select, tuple_, update

from quarterdeck.store.conversations import conversation_locked, no_such_conversation
from quarterdeck.store.database import Database, Transaction
from quarterdeck.store.ownership import Owner
from quarterdeck.store.response_tables import conversations


class ConversationLocks:
    def __init__(self, database: Database, *, wall: Callable[[], float] = time.time) -> None:
        self._database = database
        self._wall = wall

    async def lock(self, id: str, of: Owner, response: str, *, seconds: float) -> None:
        """Raises NotFoundError, and ConflictError while another response is made in the conversation."""
        async with self._database.begin() as transaction:
            await lock_on(transaction, id, of, response, now=self._wall(), seconds=seconds)

    async def renew(self, locks: Mapping[str, str], *, seconds: float) -> None:
        """Renew the locks of these responses, by conversation."""
        held = tuple_(conversations.c.id, conversations.c.locked_by).in_(list(locks.items()))
        async with self._database.begin() as transaction:
            await transaction.execute(update(conversations).where(held).values(locked_until=self._wall() + seconds))

    async def unlock(self, id: str, response: str) -> None:
        """Idempotent."""
        async with self._database.begin() as transaction:
            await unlock_on(transaction, id, response)


async def lock_on(transaction: Transaction, id: str, of: Owner, response: str, *, now: float, seconds: float) -> None:
    """`ConversationLocks.lock` in a transaction."""
    columns = conversations.c
    mine = (columns.id == id) & of.owns(conversations)
    is_free = or_(columns.locked_by.is_(None), columns.locked_until < now)
    statement = update(conversations).where(mine, is_free).values(locked_by=response, locked_until=now + seconds)
    if (await transaction.execute(statement)).rowcount:
        return
    if await transaction.scalar(select(columns.id).where(mine)) is None:
        raise no_such_conversation(id)
    raise conversation_locked()


async def unlock_on(transaction: Transaction, id: str, response: str) -> None:
    """`ConversationLocks.unlock` in a transaction."""
    mine = (conversations.c.id == id) & (conversations.c.locked_by == response)
    await transaction.execute(update(conversations).where(mine).values(locked_by=None, locked_until=None))
