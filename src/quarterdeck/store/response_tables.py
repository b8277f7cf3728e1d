"""Tables of responses and conversations, their items, and chat completions of `store: true`.

Texts are compressed JSON (`packing`). Times are Unix seconds, as in `tables`.
"""

from sqlalchemy import JSON, Boolean, Column, Double, Index, Integer, LargeBinary, Table, Text

from quarterdeck.store.tables import index_of, metadata

responses = Table(
    "responses",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org", Text, nullable=False),
    Column("team", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("request", Text, nullable=False),  # the id of its record
    Column("user", Text, nullable=True),
    Column("session", Text, nullable=True),
    Column("status", Text, nullable=False),
    Column("previous", Text, nullable=True),
    Column("conversation", Text, nullable=True),
    Column("created", Double, nullable=False),
    Column("alive_until", Double, nullable=True),  # of one in progress: when its gateway counts as dead
    Column("body", LargeBinary, nullable=False),  # the object, without its output
    Column("steps", LargeBinary, nullable=True),  # what its events are made of again
    Column("attempt", Integer, nullable=True),  # of the job that executes it; null: it is not a background response
    Index("ix_responses_org", "org", "created"),
    Index("ix_responses_org_request", "org", "request"),
    index_of("org", "user", where='"user" IS NOT NULL', name="ix_responses_org_user"),
    index_of("org", "session", where="session IS NOT NULL", name="ix_responses_org_session"),
)

# The steps of a background response in progress, as they come.
response_steps = Table(
    "response_steps",
    metadata,
    Column("response", Text, primary_key=True),
    Column("position", Integer, primary_key=True),  # of its first step
    Column("count", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
)

stored_items = Table(
    "stored_items",
    metadata,
    Column("owner", Text, primary_key=True),  # a response or a conversation
    Column("position", Integer, primary_key=True),
    Column("id", Text, nullable=False),  # as its client sees it: a conversation has the id of a response's item
    Column("org", Text, nullable=False),
    Column("team", Text, nullable=False),
    Column("is_output", Boolean, nullable=False),
    Column("bytes", Integer, nullable=False),  # of its JSON
    Column("body", LargeBinary, nullable=False),
    Column("created", Double, nullable=False),
    Column("request", Text, nullable=True),  # as in `responses`; null: a client put it into a conversation
    Column("user", Text, nullable=True),
    Column("session", Text, nullable=True),
    Index("ix_stored_items_org_id", "org", "id"),
    index_of("org", "request", where="request IS NOT NULL", name="ix_stored_items_org_request"),
    index_of("org", "user", where='"user" IS NOT NULL', name="ix_stored_items_org_user"),
    index_of("org", "session", where="session IS NOT NULL", name="ix_stored_items_org_session"),
)

conversations = Table(
    "conversations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org", Text, nullable=False),
    Column("team", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("used", Double, nullable=False),  # last
    Column("metadata", JSON, nullable=False),
    Column("next_position", Integer, nullable=False),
    Column("locked_by", Text, nullable=True),  # the response that is being made in it
    Column("locked_until", Double, nullable=True),
    Index("ix_conversations_org_used", "org", "used"),
    index_of("locked_by", where="locked_by IS NOT NULL", name="ix_conversations_locked_by"),
)

chat_completions = Table(
    "chat_completions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org", Text, nullable=False),
    Column("team", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("request", Text, nullable=False),
    Column("user", Text, nullable=True),
    Column("session", Text, nullable=True),
    Column("model", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("messages", LargeBinary, nullable=False),  # of the request
    Index("ix_chat_completions_org", "org", "team", "created", "id"),
    Index("ix_chat_completions_org_request", "org", "request"),
    index_of("org", "user", where='"user" IS NOT NULL', name="ix_chat_completions_org_user"),
    index_of("org", "session", where="session IS NOT NULL", name="ix_chat_completions_org_session"),
)
