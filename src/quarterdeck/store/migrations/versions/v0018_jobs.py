"""Jobs, the steps of background responses, and the lock of a conversation.

An old gateway of a rolling update neither makes background responses nor locks conversations.
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("team", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("due", sa.Double(), nullable=False),
        sa.Column("deadline", sa.Double(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("lease", sa.Text(), nullable=True),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("finished", sa.Double(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("payload", sa.LargeBinary(), nullable=True),
        sa.Column("progress", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
    )
    for name, columns, condition in (
        ("ix_jobs_kind_org_due", ["kind", "org", "due"], "finished IS NULL"),
        ("ix_jobs_finished", ["finished"], "finished IS NOT NULL"),
        ("ix_jobs_lease", ["lease"], "lease IS NOT NULL"),
        ("ix_jobs_org_subject", ["org", "subject"], "finished IS NULL"),
    ):
        where = sa.text(condition)
        op.create_index(name, "jobs", columns, sqlite_where=where, postgresql_where=where)
    op.create_table(
        "platform_secrets",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_platform_secrets"),
    )
    op.create_table(
        "response_steps",
        sa.Column("response", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("response", "position", name="pk_response_steps"),
    )
    op.add_column("responses", sa.Column("attempt", sa.Integer(), nullable=True))
    op.add_column("conversations", sa.Column("locked_by", sa.Text(), nullable=True))
    op.add_column("conversations", sa.Column("locked_until", sa.Double(), nullable=True))
    where = sa.text("locked_by IS NOT NULL")
    op.create_index(
        "ix_conversations_locked_by", "conversations", ["locked_by"], sqlite_where=where, postgresql_where=where
    )
