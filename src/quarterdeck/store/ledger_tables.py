"""The ledger's tables, and those of contents and scores. Times are Unix seconds, as in the record."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from quarterdeck.store.exact import ExactDecimal
from quarterdeck.store.tables import index_of, metadata

# No foreign keys: the ledger is a journal. A row must be accepted even if its key or team is gone.
ledger = Table(
    "ledger",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org", Text, nullable=False),
    Column("team", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("key_name", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("route", Text, nullable=False, server_default=""),
    Column("prompt", Text, nullable=True),
    Column("prompt_version", Text, nullable=True),
    Column("prompt_label", Text, nullable=True),
    Column("stream", Boolean, nullable=False),
    Column("started", Double, nullable=False),
    Column("first_token", Double, nullable=True),
    Column("ended", Double, nullable=False),
    Column("status", Text, nullable=False),
    Column("http_status", Integer, nullable=False),
    Column("error_code", Text, nullable=True),
    Column("finish_reason", Text, nullable=True),
    Column("response_id", Text, nullable=True),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("audio_ms", BigInteger, nullable=False, server_default="0"),
    Column("characters", BigInteger, nullable=False, server_default="0"),
    Column("images", BigInteger, nullable=False, server_default="0"),
    Column("usage_source", Text, nullable=False),
    Column("price_version", Text, nullable=False),
    Column("price_input", ExactDecimal, nullable=False),
    Column("price_cached", ExactDecimal, nullable=False),
    Column("price_output", ExactDecimal, nullable=False),
    Column("cost", ExactDecimal, nullable=False),
    Column("cache", Text, nullable=False),
    Column("cache_age", Double, nullable=True),
    Column("saved", ExactDecimal, nullable=False, server_default="0"),
    Column("resumed", Integer, nullable=False, server_default="0"),
    Column("user", Text, nullable=True),
    Column("session", Text, nullable=True),
    Column("max_tokens", BigInteger, nullable=True),
    Column("temperature", Double, nullable=True),
    Column("top_p", Double, nullable=True),
    Column("seed", BigInteger, nullable=True),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("tags", JSON, nullable=False, server_default="[]"),
    Column("attempts", JSON, nullable=False),
    Column("content", Text, nullable=False, server_default="off"),
    Column("caller_trace_id", Text, nullable=True),
    Column("parent", Text, nullable=True),  # the response that it was made for
    Index(None, "org", "started", "id"),
    Index(None, "org", "key", "started"),
    Index(None, "org", "team", "started"),
    Index(
        "ix_ledger_org_prompt_started",
        *("org", "prompt", "started"),
        sqlite_where=text("prompt IS NOT NULL"),
        postgresql_where=text("prompt IS NOT NULL"),
    ),
    Index(None, "org", "model", "started"),
    # For the request log. Partial: most requests have none of these, and pay nothing.
    index_of("org", "started", where="status <> 'ok'", name="ix_ledger_failed_org_started"),
    index_of("org", "error_code", "started", where="error_code IS NOT NULL"),
    index_of("org", "route", "started", where="route <> ''"),
    index_of("org", "user", "started", where='"user" IS NOT NULL'),
    index_of("org", "session", "started", where='"session" IS NOT NULL'),
    index_of("org", "parent", where="parent IS NOT NULL", name="ix_ledger_org_parent"),
)

# Inputs and outputs, redacted and compressed, for as long as `content.retention_days` says. No foreign key: the ledger
# may be cleaned up on its own.
contents = Table(
    "contents",
    metadata,
    Column("id", Text, primary_key=True),  # of the request
    Column("org", Text, nullable=False),
    Column("user", Text, nullable=True),
    Column("session", Text, nullable=True),
    Column("started", Double, nullable=False),
    Column("level", Text, nullable=False),
    Column("input", LargeBinary, nullable=True),
    Column("output", LargeBinary, nullable=True),
    Column("input_bytes", BigInteger, nullable=False),
    Column("output_bytes", BigInteger, nullable=False),
    Column("input_hash", Text, nullable=False),
    Column("output_hash", Text, nullable=False),
    Column("is_input_cut", Boolean, nullable=False),
    Column("is_output_cut", Boolean, nullable=False),
    Column("redacted", JSON, nullable=False),
    Index(None, "org", "started"),
    index_of("org", "user", where='"user" IS NOT NULL'),
    index_of("org", "session", where='"session" IS NOT NULL'),
)

# Deletions of contents. What was captured before one and turns up after it (from Redis, a spool) is not stored.
content_deletions = Table(
    "content_deletions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org", Text, nullable=False),
    Column("by", Text, nullable=False),  # request, user or session
    Column("value", Text, nullable=False),
    Column("key", Text, nullable=False),  # the admin key that asked for it
    Column("at", Double, nullable=False),
    Index(None, "org", "at"),
)

# Feedback and evaluations. No foreign key: a score may come before its request's row.
scores = Table(
    "scores",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org", Text, nullable=False),
    Column("team", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("request", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("user", Text, nullable=False),  # empty: none was named
    Column("source", Text, nullable=False),
    Column("kind", Text, nullable=True),
    Column("value", Double, nullable=True),
    Column("category", Text, nullable=True),
    Column("comment", Text, nullable=True),
    Column("created", Double, nullable=False),
    Column("updated", Double, nullable=False),
    Column("is_confirmed", Boolean, nullable=False),
    Column("deleted", Double, nullable=True),
    Column("exported", Double, nullable=True),
    UniqueConstraint("org", "request", "name", "user"),
    Index(None, "org", "created", "id"),
    index_of("org", "team", where="is_confirmed = false"),
    index_of("org", "updated", where="exported IS NULL OR deleted IS NOT NULL"),
)
