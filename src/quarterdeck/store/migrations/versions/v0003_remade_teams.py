"""When a deleted team's name was used again: the new team's spending and cached answers are its own.

Old gateways do not write the column, so a team that one of them makes anew during a rolling update counts as the old
one.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("teams", sa.Column("remade", sa.Double(), nullable=True))
