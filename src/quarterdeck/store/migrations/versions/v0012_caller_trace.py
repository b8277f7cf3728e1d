"""The trace of its caller that a request continues: scores of the request belong to that trace.

An old worker of a rolling update inserts rows without it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("ledger", sa.Column("caller_trace_id", sa.Text(), nullable=True))
