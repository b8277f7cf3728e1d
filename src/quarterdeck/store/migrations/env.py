"""Alembic's entry point: runs migrations on the connection of `store/migration`.

The caller owns lock and transaction, so that a migration that fails leaves nothing behind.
"""

from alembic import context

from quarterdeck.store.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
context.run_migrations()
