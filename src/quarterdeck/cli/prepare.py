"""Brings the database to this program's version and enters the user's keys: `python -m quarterdeck.cli.prepare`.

A process of its own, run by `up` before gateway and worker start, so that the supervisor does not hold SQLAlchemy for
as long as the platform runs. Says one line on stderr and exits 1 where it can't.
"""

import asyncio
import sys

from quarterdeck.cli import credentials
from quarterdeck.errors import APIError
from quarterdeck.settings.environment import Environment
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore
from quarterdeck.store.migration import MigrationError


async def prepare(environment: Environment) -> None:
    """Repeatable: a key that is there stays as it is, even a revoked one."""
    mine = credentials.read(environment.state)
    database = Database(environment.database_url)
    try:
        await database.migrate()
        keys = KeyStore(database)
        await keys.ensure(secret=mine.api_key, name="local")
        await keys.ensure(secret=mine.admin_key, name="local-admin", is_admin=True)
    finally:
        await database.close()


def main() -> int:
    try:
        asyncio.run(prepare(Environment.read()))
    except (APIError, MigrationError, credentials.CredentialsError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
