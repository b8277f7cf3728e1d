"""What audio and image requests are counted by: milliseconds of audio, characters of speech, images.

An old worker of a rolling update inserts rows and sums of hours without them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("ledger", "usage_rollups"):
        for name in ("audio_ms", "characters", "images"):
            op.add_column(table, sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
