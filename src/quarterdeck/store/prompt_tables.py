"""Tables of prompts: versions, labels, history, links to Langfuse. Times are Unix seconds, as in `tables`."""

from sqlalchemy import JSON, BigInteger, Boolean, Column, Double, ForeignKey, Integer, Table, Text, UniqueConstraint

from quarterdeck.store.tables import metadata

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
