"""Usage by hour. The worker fills it from the ledger, from an organisation's first request on.

An old worker of a rolling update marks no hour as late: a record that it inserts more than two hours after its request
is missing in reports of that hour until the hour is rolled up again.
"""

import sqlalchemy as sa
from alembic import op

from quarterdeck.store.exact import ExactDecimal

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TEXTS = ("team", "key", "model", "route", "operation", "status", "prompt", "prompt_version")
COUNTS = ("requests", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")


def upgrade() -> None:
    op.create_table(
        "usage_rollups",
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("hour", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in TEXTS),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in COUNTS),
        sa.Column("cost", ExactDecimal(), nullable=False),
        sa.Column("saved", ExactDecimal(), nullable=False),
        sa.PrimaryKeyConstraint("org", "hour", *TEXTS, name="pk_usage_rollups"),
    )
    op.create_table(
        "usage_rolled",
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("org", name="pk_usage_rolled"),
    )
    op.create_table(
        "usage_late_hours",
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("hour", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("org", "hour", name="pk_usage_late_hours"),
    )
