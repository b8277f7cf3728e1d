"""Indexes of the request log.

On Postgres a large ledger is locked against inserts while they are built, some seconds for each million rows; records
wait in Redis meanwhile.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

PARTIAL = {
    "status": "status <> 'ok'",
    "error_code": "error_code IS NOT NULL",
    "route": "route <> ''",
    "user": '"user" IS NOT NULL',
    "session": '"session" IS NOT NULL',
}


def upgrade() -> None:
    op.create_index("ix_ledger_org_model_started", "ledger", ["org", "model", "started"])
    for name, condition in PARTIAL.items():
        where = sa.text(condition)
        op.create_index(
            f"ix_ledger_org_{name}_started",
            "ledger",
            ["org", name, "started"],
            sqlite_where=where,
            postgresql_where=where,
        )
