"""Sums of the ledger: usage by hour, and what deleted rows cost. Hours are Unix seconds at their beginning."""

from sqlalchemy import BigInteger, Column, Table, Text

from quarterdeck.store.exact import ExactDecimal
from quarterdeck.store.tables import metadata

# Sums of the ledger by hour. The empty text stands for null in `prompt` and `prompt_version`: they are in the key.
usage_rollups = Table(
    "usage_rollups",
    metadata,
    Column("org", Text, primary_key=True),
    Column("hour", BigInteger, primary_key=True),
    Column("team", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("route", Text, primary_key=True),
    Column("operation", Text, primary_key=True),
    Column("status", Text, primary_key=True),
    Column("prompt", Text, primary_key=True),
    Column("prompt_version", Text, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("audio_ms", BigInteger, nullable=False, server_default="0"),
    Column("characters", BigInteger, nullable=False, server_default="0"),
    Column("images", BigInteger, nullable=False, server_default="0"),
    Column("cost", ExactDecimal, nullable=False),
    Column("saved", ExactDecimal, nullable=False),
)

usage_rolled = Table(
    "usage_rolled",
    metadata,
    Column("org", Text, primary_key=True),
    Column("until", BigInteger, nullable=False),  # hours before it are rolled up
    Column("pruned", BigInteger, nullable=True),  # hours before it are deleted from the ledger
)

# What ledger rows that were deleted by age cost, for budgets: each request rounded up.
pruned_spending = Table(
    "pruned_spending",
    metadata,
    Column("org", Text, primary_key=True),
    Column("hour", BigInteger, primary_key=True),
    Column("team", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("microdollars", BigInteger, nullable=False),
)

usage_late_hours = Table(
    "usage_late_hours",
    metadata,
    Column("org", Text, primary_key=True),
    Column("hour", BigInteger, primary_key=True),
)
