"""Deletes an organisation.

Its keys are revoked, its teams, prompts and files deleted, and its webhooks removed, in one transaction; the worker
removes the files' contents. Stored inputs and
outputs are deleted by the worker's retention, so that those of the last requests, which arrive later, go as well. The
ledger keeps its rows: money that was spent stays spent. Therefore the id is not used again.
"""

import time
from collections.abc import Sequence

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from quarterdeck.errors import ConflictError
from quarterdeck.store.batches import delete_batches_of
from quarterdeck.store.database import Database
from quarterdeck.store.files import delete_files_of
from quarterdeck.store.orgs import no_such_org
from quarterdeck.store.prompt_changes import begin_change
from quarterdeck.store.prompt_tables import prompts
from quarterdeck.store.tenancy_tables import api_keys, orgs, teams
from quarterdeck.store.uploads import delete_uploads_of
from quarterdeck.store.webhook_tables import webhook_deliveries, webhook_endpoints


class OrgDeletion:
    """Must not be called for the platform's own organisation."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def delete(self, id: str, *, revoke_keys: bool, author: str) -> Sequence[str]:
        """Delete an organisation. Returns the ids of the keys that were revoked with it. `author`: the key that asks.

        Raises NotFoundError, and ConflictError while it has keys that are not revoked, unless `revoke_keys`.
        """
        now = time.time()
        async with self._database.begin() as connection:
            # The write comes first: a key created meanwhile waits for it, or this waits for the key.
            is_wanted = (orgs.c.id == id) & orgs.c.deleted.is_(None)
            if not (await connection.execute(update(orgs).where(is_wanted).values(deleted=now))).rowcount:
                raise no_such_org(id)
            revoked = await _revoke_keys(connection, id, now, is_allowed=revoke_keys)
            await connection.execute(
                update(teams).where(teams.c.org == id, teams.c.deleted.is_(None)).values(deleted=now)
            )
            await _delete_prompts(connection, id, author)
            await delete_uploads_of(connection, id)
            await delete_files_of(connection, id)
            await delete_batches_of(connection, id)
            for table in (webhook_deliveries, webhook_endpoints):
                await connection.execute(delete(table).where(table.c.org == id))
        return revoked


async def _revoke_keys(connection: AsyncConnection, org: str, now: float, *, is_allowed: bool) -> Sequence[str]:
    """Raises ConflictError."""
    is_alive = (api_keys.c.org == org) & api_keys.c.revoked.is_(None)
    if not is_allowed and (count := await connection.scalar(select(func.count()).where(is_alive))):
        raise ConflictError(
            f"The organisation '{org}' has {count} keys that are not revoked. Revoke them first, or set"
            " `revoke_keys=true`.",
            code="org_not_empty",
        )
    revoked = update(api_keys).where(is_alive).values(revoked=now).returning(api_keys.c.id)
    return list(await connection.scalars(revoked))


async def _delete_prompts(connection: AsyncConnection, org: str, author: str) -> None:
    for name in list(
        await connection.scalars(select(prompts.c.name).where(prompts.c.org == org, prompts.c.deleted.is_(None)))
    ):
        await (await begin_change(connection, name, org, author)).delete()
