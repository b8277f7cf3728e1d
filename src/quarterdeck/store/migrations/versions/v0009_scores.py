"""Scores of requests: feedback and evaluations."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "scores",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("team", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=True),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("category", sa.Text(), nullable=True),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.Column("is_confirmed", sa.Boolean(), nullable=False),
        sa.Column("deleted", sa.Double(), nullable=True),
        sa.Column("exported", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_scores"),
        sa.UniqueConstraint("org", "request", "name", "user", name="uq_scores_org_request_name_user"),
    )
    op.create_index("ix_scores_org_created_id", "scores", ["org", "created", "id"])
    for columns, condition in (
        (["org", "team"], "is_confirmed = false"),
        (["org", "updated"], "exported IS NULL OR deleted IS NOT NULL"),
    ):
        where = sa.text(condition)
        op.create_index("ix_scores_" + "_".join(columns), "scores", columns, sqlite_where=where, postgresql_where=where)
