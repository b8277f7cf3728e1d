"""Ledger rows deleted by age: how far, and what they cost, for budgets."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("usage_rolled", sa.Column("pruned", sa.BigInteger(), nullable=True))
    op.create_table(
        "pruned_spending",
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("hour", sa.BigInteger(), nullable=False),
        sa.Column("team", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("microdollars", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("org", "hour", "team", "key", name="pk_pruned_spending"),
    )
