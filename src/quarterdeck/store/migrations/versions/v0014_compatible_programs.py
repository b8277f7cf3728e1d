"""Which older programs work with the tables, so that they go on while a deployment is upgraded or rolled back."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "compatible_programs",
        sa.Column("tables", sa.Text(), nullable=False),
        sa.Column("program", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tables", "program", name="pk_compatible_programs"),
    )
