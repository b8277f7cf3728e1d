"""Migrates the database and registers the user's keys: `python -m quarterdeck.cli.prepare_database`.

`up` runs it as a separate process before gateway and worker start, so the long-lived supervisor does not load
SQLAlchemy. On failure it prints one line to stderr and exits with status 1.
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
    """Idempotent: existing keys stay unchanged, even revoked ones."""
    user = credentials.read(environment.state)
    database = Database(environment.database_url)
    try:
        await database.migrate()
        keys = KeyStore(database)
        await keys.ensure(secret=user.api_key, name="local")
        await keys.ensure(secret=user.admin_key, name="local-admin", is_admin=True)
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
