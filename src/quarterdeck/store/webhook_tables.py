"""Tables of webhook endpoints, events and deliveries. Times are Unix seconds, as in `tables`."""

from sqlalchemy import JSON, Column, Double, Index, Integer, Table, Text, UniqueConstraint

from quarterdeck.store.tables import index_of, metadata

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
