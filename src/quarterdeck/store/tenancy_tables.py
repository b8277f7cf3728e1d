"""Tables of organisations, teams and API keys. Times are Unix seconds, as in `tables`."""

from sqlalchemy import JSON, Boolean, Column, Double, ForeignKey, ForeignKeyConstraint, Index, Integer, Table, Text

from quarterdeck.store.tables import metadata

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
