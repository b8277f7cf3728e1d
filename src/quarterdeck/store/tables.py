"""The tables as the code knows them. `migrations/` creates them, and a test compares the two.

Times are Unix seconds in double precision, as in the record, so that a row and its record are equal to the last bit on
every database. (In SQL, `to_timestamp(started)` reads them.)
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from quarterdeck.store.exact import ExactDecimal

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def index_of(*columns: str, where: str, name: str | None = None) -> Index:
    """A partial index: rows that don't meet the condition cost it nothing."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


orgs = Table(
    "orgs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("created", Double, nullable=False),
    Column("limits", JSON(none_as_null=True), nullable=True),
    Column("budget", JSON(none_as_null=True), nullable=True),
    Column("content", Text, nullable=True),  # off, hashed or full; null: it does not say
    Column("content_days", Double, nullable=True),
    Column("deleted", Double, nullable=True),  # the ledger still names it: its id is not used again
)

teams = Table(
    "teams",
    metadata,
    Column("org", Text, ForeignKey("orgs.id"), primary_key=True),
    Column("id", Text, primary_key=True),
    Column("created", Double, nullable=False),
    Column("limits", JSON(none_as_null=True), nullable=True),
    Column("budget", JSON(none_as_null=True), nullable=True),
    Column("priority", Integer, nullable=True),
    Column("deleted", Double, nullable=True),  # revoked keys still refer to it
    Column("content", Text, nullable=True),
    Column("remade", Double, nullable=True),  # when the name of a deleted team was used again
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org", Text, nullable=False),
    Column("team", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False, unique=True),  # SHA-256 of the secret, which is not stored
    Column("hint", Text, nullable=False),  # the secret's last four characters
    Column("limits", JSON(none_as_null=True), nullable=True),
    Column("budget", JSON(none_as_null=True), nullable=True),
    Column("models", JSON(none_as_null=True), nullable=True),
    Column("priority", Integer, nullable=True),
    Column("tags", JSON, nullable=False, server_default="[]"),
    Column("content", Text, nullable=True),
    Column("is_admin", Boolean, nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double, nullable=True),
    Column("revoked", Double, nullable=True),
    ForeignKeyConstraint(["org", "team"], ["teams.org", "teams.id"]),
    Index(None, "org", "created", "id"),
    Index(None, "org", "team"),
)

prompts = Table(
    "prompts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("teams", JSON(none_as_null=True), nullable=True),  # null: all of the organisation
    Column("latest", Integer, nullable=False),  # the number of its newest version
    Column("revision", Integer, nullable=False),  # counted up with each change
    Column("author", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("updated", Double, nullable=False),
    Column("archived", Double, nullable=True),
    Column("deleted", Double, nullable=True),  # the ledger still names its versions: their numbers are not used again
    UniqueConstraint("org", "name"),
)

prompt_versions = Table(
    "prompt_versions",
    metadata,
    Column("prompt", Text, ForeignKey("prompts.id"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("content", JSON, nullable=False),
    Column("digest", Text, nullable=False),  # of the content
    Column("message", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("created", Double, nullable=False),
)

prompt_labels = Table(
    "prompt_labels",
    metadata,
    Column("prompt", Text, ForeignKey("prompts.id"), primary_key=True),
    Column("label", Text, primary_key=True),
    Column("target", JSON, nullable=False),
    Column("is_guarded", Boolean, nullable=False),
    Column("author", Text, nullable=False),
    Column("updated", Double, nullable=False),
)

prompt_events = Table(
    "prompt_events",
    metadata,
    Column("prompt", Text, ForeignKey("prompts.id"), primary_key=True),
    Column("position", BigInteger, primary_key=True),  # by the prompt's revision
    Column("id", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("label", Text, nullable=True),
    Column("before", JSON(none_as_null=True), nullable=True),
    Column("after", JSON(none_as_null=True), nullable=True),
    Column("reason", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("created", Double, nullable=False),
)

# Prompts that are synchronised with another system (a Langfuse project). No foreign key: a prompt may exist there only.
prompt_links = Table(
    "prompt_links",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org", Text, nullable=False),
    Column("project", Text, nullable=False),  # Langfuse's id
    Column("name", Text, nullable=False),  # the same on both sides
    Column("prompt", Text, nullable=True),  # ours, once it exists
    Column("origin", Text, nullable=True),  # ours or theirs; null: not decided
    Column("is_detached", Boolean, nullable=False),
    Column("labels", JSON, nullable=False),  # where they stood on both sides, by our number
    Column("ignored", JSON, nullable=False),  # versions that stay on their side
    Column("tags", JSON, nullable=False),
    Column("conflicts", JSON, nullable=False),
    Column("notes", JSON, nullable=False),
    Column("keep", Text, nullable=True),  # what an admin decided, until it is done
    Column("seen", Text, nullable=False),  # the state of both sides that was synchronised last
    Column("checked", Double, nullable=False),
    Column("updated", Double, nullable=False),
    UniqueConstraint("org", "project", "name"),
)

prompt_link_versions = Table(
    "prompt_link_versions",
    metadata,
    Column("link", Text, ForeignKey("prompt_links.id"), primary_key=True),
    Column("theirs", Integer, primary_key=True),
    Column("ours", Integer, nullable=False),
    Column("their_id", Text, nullable=False),  # numbers are used again there, ids are not
)

# Work that one worker does at a time.
leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("until", Double, nullable=False),
)

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

# Where an organisation's events are posted to. The secrets sign them, so they can't be digests.
webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("event_types", JSON(none_as_null=True), nullable=True),  # null: all
    Column("secret", Text, nullable=False),
    Column("old_secret", Text, nullable=True),  # signs as well until then
    Column("old_secret_until", Double, nullable=True),
    Column("created", Double, nullable=False),
    Column("updated", Double, nullable=False),
    Column("disabled", Double, nullable=True),
    Column("disabled_reason", Text, nullable=True),
    Index(None, "org", "created", "id"),
)

# Events and their deliveries: the outbox of the worker.
webhook_events = Table(
    "webhook_events",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org", Text, nullable=False),
    Column("key", Text, nullable=True),  # what it is about: one event for each
    Column("type", Text, nullable=False),
    Column("body", Text, nullable=False),  # as it is posted
    Column("created", Double, nullable=False),
    Column("expires", Double, nullable=True),  # null: never, as its key must not be used again
    UniqueConstraint("org", "key"),
    index_of("expires", where="expires IS NOT NULL"),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("state", Text, nullable=False),  # pending, delivered, failed
    Column("attempts", Integer, nullable=False),
    Column("due", Double, nullable=False),  # of the next attempt
    Column("retry_until", Double, nullable=False),
    Column("lease", Text, nullable=True),  # of the worker that delivers it
    Column("leased_until", Double, nullable=True),
    Column("status", Integer, nullable=True),  # of the last response
    Column("error", Text, nullable=True),
    Column("created", Double, nullable=False),
    Column("finished", Double, nullable=True),
    UniqueConstraint("event", "endpoint"),
    Index(None, "endpoint", "created", "id"),
    index_of("due", where="state = 'pending'"),
    index_of("org", where="state = 'pending'"),
    index_of("finished", where="finished IS NOT NULL"),
)

compatible_programs = Table(
    "compatible_programs",
    metadata,
    Column("tables", Text, primary_key=True),  # the revision of the tables
    Column("program", Text, primary_key=True),  # the newest revision that a program knows which works with them
)
