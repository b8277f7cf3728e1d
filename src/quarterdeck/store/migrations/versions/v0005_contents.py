"""Inputs and outputs of requests, and what is kept of them by org, team and key.

An old worker of a rolling update inserts rows without `content`, and leaves contents in Redis until they expire.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("orgs", "teams", "api_keys"):
        op.add_column(table, sa.Column("content", sa.Text(), nullable=True))
    op.add_column("orgs", sa.Column("content_days", sa.Double(), nullable=True))
    op.add_column("ledger", sa.Column("content", sa.Text(), nullable=False, server_default="off"))
    op.create_table(
        "contents",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=True),
        sa.Column("session", sa.Text(), nullable=True),
        sa.Column("started", sa.Double(), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("input", sa.LargeBinary(), nullable=True),
        sa.Column("output", sa.LargeBinary(), nullable=True),
        sa.Column("input_bytes", sa.BigInteger(), nullable=False),
        sa.Column("output_bytes", sa.BigInteger(), nullable=False),
        sa.Column("input_hash", sa.Text(), nullable=False),
        sa.Column("output_hash", sa.Text(), nullable=False),
        sa.Column("is_input_cut", sa.Boolean(), nullable=False),
        sa.Column("is_output_cut", sa.Boolean(), nullable=False),
        sa.Column("redacted", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_contents"),
    )
    op.create_index("ix_contents_org_started", "contents", ["org", "started"])
    # Most requests have neither.
    has = {"user": sa.text('"user" IS NOT NULL'), "session": sa.text('"session" IS NOT NULL')}
    for name, where in has.items():
        op.create_index(
            f"ix_contents_org_{name}", "contents", ["org", name], sqlite_where=where, postgresql_where=where
        )
    op.create_table(
        "content_deletions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_content_deletions"),
    )
    op.create_index("ix_content_deletions_org_at", "content_deletions", ["org", "at"])
