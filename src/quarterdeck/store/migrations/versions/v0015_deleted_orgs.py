"""Organisations that were deleted: their ids stay taken, because the ledger names them."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("orgs", sa.Column("deleted", sa.Double(), nullable=True))
