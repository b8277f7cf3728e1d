"""The admin key that a deployment brings along, so that the first request needs no access to the database.

Every gateway makes sure of it once the tables exist, and again when the secret's file changes. A new secret is a new
key; the former one is revoked.
"""

import asyncio
import logging
import re

from quarterdeck import ids
from quarterdeck.resources.tenancy.changes import Announcer, Change
from quarterdeck.settings.environment import SecretVariable
from quarterdeck.store.database import DatabaseUnavailableError
from quarterdeck.store.keys import BOOTSTRAP_PREFIX, KeyRow, KeyStore

log = logging.getLogger(__name__)

POLL_SECONDS = 10.0
"""Between two looks at the secret's file, and between two attempts while the database is away."""
_SECRET = re.compile(r"[A-Za-z0-9_-]{32,256}")
_MIN_DISTINCT = 10


def checked(secret: str, name: str) -> str:
    """Raises ValueError, which repeats nothing of it. `name`: the variable."""
    if not _SECRET.fullmatch(secret):
        raise ValueError(f"{name} must be 32 to 256 characters of A-Z, a-z, 0-9, _ and -")
    if len(set(secret)) < _MIN_DISTINCT:
        raise ValueError(f"{name} must be a random secret")
    return secret


class BootstrapKey:
    """`run` must run once the tables exist."""

    def __init__(
        self, variable: SecretVariable, keys: KeyStore, changes: Announcer, *, poll_seconds: float = POLL_SECONDS
    ) -> None:
        """Raises ValueError and OSError where the secret is malformed or can't be read."""
        self._variable = variable
        self._keys = keys
        self._changes = changes
        self._poll_seconds = poll_seconds
        self._ensured = ""
        """The digest of the last secret that was dealt with."""
        self._complaint = ""
        checked(variable.read(), variable.name)

    async def run(self) -> None:
        """Ensure the key until cancelled."""
        while True:
            try:
                secret = checked(await asyncio.to_thread(self._variable.read), self._variable.name)
                if ids.digest(secret) != self._ensured:
                    await self._ensure(secret)
                    self._ensured = ids.digest(secret)
                self._complaint = ""
            except DatabaseUnavailableError as error:
                log.debug("the bootstrap key was not ensured: %s", error)  # the database's state is logged elsewhere
            except (ValueError, OSError) as error:
                self._complain(f"keeping the former bootstrap key: {error}")
            await asyncio.sleep(self._poll_seconds)

    async def _ensure(self, secret: str) -> None:
        row, replaced = await self._keys.ensure_bootstrap(secret)
        if (problem := problem_of(row)) is not None:
            self._complain(problem)
            return
        await self._changes.announce(Change(row.org, key=row.id))
        for each in replaced:
            await self._changes.announce(Change(each.org, key=each.id))
            log.warning("bootstrap key replaced and revoked: %s, ending in %s", each.id, each.hint)
        log.info("bootstrap key ensured: %s, ending in %s", row.id, row.hint)

    def _complain(self, text: str) -> None:
        """Once for each problem."""
        if text != self._complaint:
            self._complaint = text
            log.error("%s", text)


def problem_of(row: KeyRow) -> str | None:
    """Why the key with the secret does not serve as bootstrap key. None: it does."""
    if not row.id.startswith(BOOTSTRAP_PREFIX):
        return f"the bootstrap key's secret belongs to another key already: {row.id}; choose a new one"
    if row.revoked is not None:
        return f"the bootstrap key {row.id} was revoked or replaced, and stays so; choose a new secret"
    return None
