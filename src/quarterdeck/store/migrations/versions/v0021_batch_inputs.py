"""Which content a batch reads, so that it outlives its file until the batch has ended.

Batches of an older gateway have none: their file is looked up, as before.
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("batches", sa.Column("input_blob", sa.Text(), nullable=True))
    op.add_column("batches", sa.Column("input_bytes", sa.BigInteger(), nullable=True))
    where = sa.text("finished_at IS NULL")
    op.create_index("ix_batches_open_input", "batches", ["input_blob"], sqlite_where=where, postgresql_where=where)
