"""Limits, budgets and priorities of orgs, teams and keys; cache hits, routes and resumes in the ledger.

Every column is nullable or has a default, so that gateways and workers of the previous version can write their rows
during a rolling update.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("orgs", "teams"):
        op.add_column(table, sa.Column("limits", sa.JSON(), nullable=True))
        op.add_column(table, sa.Column("budget", sa.JSON(), nullable=True))
    op.add_column("teams", sa.Column("priority", sa.Integer(), nullable=True))
    op.add_column("teams", sa.Column("deleted", sa.Double(), nullable=True))
    op.add_column("api_keys", sa.Column("budget", sa.JSON(), nullable=True))
    op.add_column("api_keys", sa.Column("priority", sa.Integer(), nullable=True))
    op.add_column("api_keys", sa.Column("tags", sa.JSON(), nullable=False, server_default="[]"))
    op.create_index("ix_api_keys_org_team", "api_keys", ["org", "team"])

    money = sa.Text().with_variant(sa.Numeric(), "postgresql")
    op.add_column("ledger", sa.Column("route", sa.Text(), nullable=False, server_default=""))
    op.add_column("ledger", sa.Column("cache_age", sa.Double(), nullable=True))
    op.add_column("ledger", sa.Column("saved", money, nullable=False, server_default="0"))
    op.add_column("ledger", sa.Column("resumed", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("ledger", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("ledger", sa.Column("tags", sa.JSON(), nullable=False, server_default="[]"))
