"""Tables of batches. Times are Unix seconds, as in `tables`."""

from sqlalchemy import JSON, BigInteger, Boolean, Column, Double, Index, Integer, LargeBinary, Table, Text

from quarterdeck.store.tables import index_of, metadata

batches = Table(
    "batches",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org", Text, nullable=False),
    Column("team", Text, nullable=False),
    Column("key", Text, nullable=False),  # who pays
    Column("created", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("window", Text, nullable=False),
    Column("input_file", Text, nullable=False),
    Column("input_blob", Text, nullable=True),  # its content, which stays until the batch has ended (`batch_inputs`)
    Column("input_bytes", BigInteger, nullable=True),
    Column("output_expires", Double, nullable=True),  # seconds after which the output files expire
    Column("metadata", JSON(none_as_null=True), nullable=True),
    Column("status", Text, nullable=False),
    Column("ending", Text, nullable=True),  # the status that it will have when its files are written
    Column("model", Text, nullable=True),
    Column("total", Integer, nullable=False),
    Column("completed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("output_file", Text, nullable=True),
    Column("error_file", Text, nullable=True),
    Column("errors", JSON(none_as_null=True), nullable=True),
    Column("in_progress_at", Double, nullable=True),
    Column("finalizing_at", Double, nullable=True),
    Column("cancelling_at", Double, nullable=True),
    Column("finished_at", Double, nullable=True),
    Index("ix_batches_org_team_created_id", "org", "team", "created", "id"),
    index_of("org", where="finished_at IS NULL", name="ix_batches_org_open"),
    index_of("finished_at", where="finished_at IS NOT NULL", name="ix_batches_finished"),
    index_of("input_blob", where="finished_at IS NULL", name="ix_batches_open_input"),
)

batch_lines = Table(
    "batch_lines",
    metadata,
    Column("batch", Text, primary_key=True),
    Column("line", Integer, primary_key=True),
    Column("is_error", Boolean, nullable=False),
    Column("body", LargeBinary, nullable=False),  # compressed: the line of the output or error file
)
"""Finished requests of batches that have not ended. A request that is here is not executed again."""
