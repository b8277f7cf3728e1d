"""Alembic's entry: run the steps on the connection that `store/migration` handed in.

The caller owns lock and transaction, so that a step that fails leaves nothing behind.
"""

from alembic import context

from quarterdeck.store.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
context.run_migrations()
