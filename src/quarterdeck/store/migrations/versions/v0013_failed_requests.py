"""An index of failed requests by time, whatever the failure, instead of one for each status."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_ledger_org_status_started", "ledger")
    where = sa.text("status <> 'ok'")
    op.create_index(
        "ix_ledger_failed_org_started", "ledger", ["org", "started"], sqlite_where=where, postgresql_where=where
    )
