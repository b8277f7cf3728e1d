"""The prompt of a request: its name, and the label that led to its version.

The number of the version has been a column since 0001. An old worker of a rolling update inserts rows without the two.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("ledger", sa.Column("prompt", sa.Text(), nullable=True))
    op.add_column("ledger", sa.Column("prompt_label", sa.Text(), nullable=True))
