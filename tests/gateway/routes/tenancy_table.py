"""Every way in which a request can name a stored object. `test_tenancy` tries each with another's object.

A new route with a parameter in its path, and a new query parameter, has to be added here: to WAYS, or to what names no
stored object (PLATFORM, NOT_NAMES). A member of a body that names an object is added by hand.
"""

from typing import Any, Literal, NamedTuple

Scope = Literal["team", "prompt", "org", "platform"]
ID = "<id>"
"""Stands for the object's id in a query and in a body."""
FORM = b"form"
"""Stands for a form with a file."""


class Way(NamedTuple):
    kind: str
    """Of the object that is named."""
    method: str
    route: str
    """As in the route table. Its first parameter that is not the reader's own is the object."""
    query: str = ""
    body: Any = None
    own: tuple[str, ...] = ()
    """Parameters of the route that name the reader's own objects."""
    status: int = 404
    needs_admin: bool = False
    absent_differs: bool = False
    """An absent object is no error, for a reason that is given at the line."""


SCOPES: dict[str, Scope] = {
    **dict.fromkeys(("response", "background", "conversation", "item", "chat", "message"), "team"),
    **dict.fromkeys(("file", "batch_file", "upload", "part", "batch", "score"), "team"),
    **dict.fromkeys(("prompt", "prompt_name", "prompt_event"), "prompt"),
    **dict.fromkeys(("prompt_link", "link_name", "request", "webhook", "delivery", "admin_score"), "org"),
    **dict.fromkeys(("user", "session", "tag", "text", "score_name"), "org"),
    **dict.fromkeys(("key", "team", "org"), "platform"),
}
"""Who may see an object: its team; the teams of its prompt and the organisation's admins; the organisation's admins;
those and the platform's admins."""
PARAMETERS = {
    "response_id": "response",
    "conversation_id": "conversation",
    "item_id": "item",
    "completion_id": "chat",
    "file_id": "file",
    "upload_id": "upload",
    "batch_id": "batch",
    "prompt": "prompt",
    "link": "prompt_link",
    "request_id": "request",
    "score_id": "score",
    "webhook_id": "webhook",
    "key_id": "key",
    "team": "team",
    "org": "org",
}
"""The kind of the object that a parameter of a path names."""
FIXED = {"version": "1", "label": "production", "kind": "completions"}
"""Parameters of a path that name a part of an object."""

_ASK = {"model": "chat", "input": "x"}
_FILE = {"type": "input_file", "file_id": ID}
_PICTURE = {"type": "input_image", "file_id": ID}
_REFERENCES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("response", {"previous_response_id": ID, "input": "x"}),
    ("background", {"previous_response_id": ID, "input": "x"}),
    ("conversation", {"conversation": ID, "input": "x"}),
    ("conversation", {"conversation": {"id": ID}, "input": "x"}),
    ("item", {"input": [{"type": "item_reference", "id": ID}]}),
    ("file", {"input": [{"role": "user", "content": [_FILE]}]}),
    ("file", {"input": [{"role": "user", "content": [_PICTURE]}]}),
)
"""Members of a response's request."""

_RESPONSES = (
    *(Way(kind, "POST", "/v1/responses", body={**_ASK, **more}) for kind, more in _REFERENCES),
    *(Way(kind, "POST", "/v1/responses", body={**_ASK, **more, "stream": True}) for kind, more in _REFERENCES),
    *(Way(kind, "POST", "/v1/responses/input_tokens", body={**_ASK, **more}) for kind, more in _REFERENCES),
    *(
        Way(kind, "POST", "/v1/responses/compact", body={**_ASK, **more})
        for kind, more in _REFERENCES
        if kind != "conversation"  # it takes none
    ),
    *(
        Way(kind, method, f"/v1/responses/{{response_id}}{rest}", query)
        for kind in ("response", "background")
        for method, rest, query in (
            ("GET", "", ""),
            ("GET", "", "stream=true"),
            ("GET", "", "stream=true&starting_after=1"),
            ("DELETE", "", ""),
            ("POST", "/cancel", ""),
            ("GET", "/input_items", ""),
        )
    ),
    Way("item", "GET", "/v1/responses/{response_id}/input_items", f"after={ID}", own=("response_id",)),
)
_CONVERSATIONS = (
    *(Way("conversation", method, "/v1/conversations/{conversation_id}") for method in ("GET", "DELETE")),
    Way("conversation", "POST", "/v1/conversations/{conversation_id}", body={"metadata": {}}),
    Way("conversation", "GET", "/v1/conversations/{conversation_id}/items"),
    Way("conversation", "POST", "/v1/conversations/{conversation_id}/items", body={"items": []}),
    Way("item", "GET", "/v1/conversations/{conversation_id}/items", f"after={ID}", own=("conversation_id",)),
    *(
        Way(kind, method, "/v1/conversations/{conversation_id}/items/{item_id}", own=own)
        for method in ("GET", "DELETE")
        for kind, own in (("conversation", ()), ("item", ("conversation_id",)))
    ),
)
_PART = {"type": "file", "file": {"file_id": ID}}
_CHAT = {"model": "chat", "messages": [{"role": "user", "content": [_PART]}]}
_CHATS = (
    *(Way("chat", method, "/v1/chat/completions/{completion_id}") for method in ("GET", "DELETE")),
    Way("chat", "POST", "/v1/chat/completions/{completion_id}", body={"metadata": {}}),
    Way("chat", "GET", "/v1/chat/completions/{completion_id}/messages"),
    Way("message", "GET", "/v1/chat/completions/{completion_id}/messages", f"after={ID}", own=("completion_id",)),
    Way("chat", "GET", "/v1/chat/completions", f"after={ID}"),
    *(Way("file", "POST", "/v1/chat/completions", body={**_CHAT, **more}) for more in ({}, {"store": True})),
)
_FILES = (
    *(Way("file", method, "/v1/files/{file_id}") for method in ("GET", "DELETE")),
    Way("file", "GET", "/v1/files/{file_id}/content"),
    Way("file", "GET", "/v1/files", f"after={ID}"),
    Way("upload", "POST", "/v1/uploads/{upload_id}/parts", body=FORM),
    Way("upload", "POST", "/v1/uploads/{upload_id}/complete", body={"part_ids": ["part_1"]}),
    Way("upload", "POST", "/v1/uploads/{upload_id}/cancel"),
    Way("part", "POST", "/v1/uploads/{upload_id}/complete", body={"part_ids": [ID]}, own=("upload_id",), status=400),
)
_BATCHES = (
    Way("batch", "GET", "/v1/batches/{batch_id}"),
    Way("batch", "POST", "/v1/batches/{batch_id}/cancel"),
    Way("batch", "GET", "/v1/batches", f"after={ID}"),
    *(
        Way(
            kind,
            "POST",
            "/v1/batches",
            body={"input_file_id": ID, "endpoint": "/v1/chat/completions", "completion_window": "24h"},
        )
        for kind in ("file", "batch_file")
    ),
)
_SPEC = {"messages": [{"role": "user", "content": "x"}]}
_PROMPTS = (
    *(
        Way(kind, method, f"/v1/prompts/{{prompt}}{rest}", query, body, needs_admin=needs_admin)
        for kind in ("prompt", "prompt_name")
        for method, rest, query, body, needs_admin in (
            ("GET", "", "", None, False),
            ("POST", "", "", {"description": "x"}, True),
            ("DELETE", "", "", None, True),
            ("GET", "/events", "", None, False),
            ("GET", "/versions", "", None, False),
            ("GET", "/versions", "after=1", None, False),
            ("POST", "/versions", "", _SPEC, True),
            ("GET", "/versions/{version}", "", None, False),
            ("GET", "/diff", "from=1&to=1", None, False),
            ("POST", "/render", "", {}, False),
            ("GET", "/labels", "", None, False),
            ("POST", "/labels/{label}", "", {"version": 1}, True),
            ("DELETE", "/labels/{label}", "", None, True),
            ("POST", "/labels/{label}/rollback", "", {}, True),
            ("GET", "/compare", "baseline=1&candidate=1", None, True),
        )
    ),
    Way("prompt_event", "GET", "/v1/prompts/{prompt}/events", f"after={ID}", own=("prompt",), needs_admin=True),
    *(Way(kind, "GET", "/v1/prompts", f"after={ID}") for kind in ("prompt", "prompt_name")),
    Way("prompt_name", "GET", "/v1/prompts", f"name={ID}", status=200),
)
_LINKS = (
    Way("prompt_link", "GET", "/admin/prompt_links/{link}"),
    Way("prompt_link", "POST", "/admin/prompt_links/{link}", body={"keep": "ours"}),
    Way("prompt_link", "GET", "/admin/prompt_links", f"after={ID}"),
    Way("link_name", "GET", "/admin/prompt_links", f"name={ID}", status=200),
)
_REQUESTS = (
    Way("request", "GET", "/admin/requests/{request_id}"),
    Way("request", "GET", "/admin/requests", f"after={ID}"),
    *(Way(kind, "GET", "/admin/requests", f"{kind}={ID}") for kind in ("key", "team")),
    *(Way(kind, "GET", "/admin/requests", f"{kind}={ID}", status=200) for kind in ("user", "session", "tag", "text")),
    Way("text", "GET", "/admin/requests", f"text={ID}&content=true", status=200),
    Way("prompt_name", "GET", "/admin/requests", f"prompt={ID}", status=200, needs_admin=True),
    *(Way(kind, "DELETE", "/admin/contents", f"{kind}={ID}", status=200) for kind in ("request", "user", "session")),
)
_SCORES = (
    Way("score", "DELETE", "/v1/feedback/{score_id}"),
    Way("score", "GET", "/v1/feedback", f"after={ID}"),
    Way("request", "GET", "/v1/feedback", f"request_id={ID}", status=200),
    Way("user", "GET", "/v1/feedback", f"user={ID}", status=200),
    Way("admin_score", "DELETE", "/admin/scores/{score_id}"),
    Way("admin_score", "GET", "/admin/scores", f"after={ID}"),
    Way("request", "GET", "/admin/scores", f"request_id={ID}", status=200),
    Way("user", "GET", "/admin/scores", f"user={ID}", status=200),
    Way("team", "GET", "/admin/scores", f"team={ID}", status=200),
    *(Way("score_name", "GET", route, f"name={ID}", status=200) for route in ("/v1/feedback", "/admin/scores")),
)
_WEBHOOKS = tuple(
    way
    for prefix in ("/admin/webhooks", "/v1/webhook_endpoints")
    for way in (
        Way("webhook", "GET", f"{prefix}/{{webhook_id}}"),
        Way("webhook", "POST", f"{prefix}/{{webhook_id}}", body={"name": "x"}),
        Way("webhook", "POST", f"{prefix}/{{webhook_id}}", body={"enabled": False}),
        Way("webhook", "DELETE", f"{prefix}/{{webhook_id}}"),
        Way("webhook", "POST", f"{prefix}/{{webhook_id}}/rotate_secret", body={}),
        Way("webhook", "POST", f"{prefix}/{{webhook_id}}/test", body={}),
        Way("webhook", "GET", f"{prefix}/{{webhook_id}}/deliveries"),
        Way("delivery", "GET", f"{prefix}/{{webhook_id}}/deliveries", f"after={ID}", own=("webhook_id",)),
        Way("webhook", "GET", prefix, f"after={ID}"),
    )
)
_TENANCY = (
    *(Way("key", method, "/admin/keys/{key_id}") for method in ("GET", "DELETE")),
    Way("key", "POST", "/admin/keys/{key_id}", body={"name": "x"}),
    Way("key", "POST", "/admin/keys/{key_id}/rotate"),
    Way("key", "GET", "/admin/keys", f"after={ID}"),
    Way("team", "GET", "/admin/keys", f"team={ID}"),
    *(Way("team", method, "/admin/teams/{team}") for method in ("GET", "DELETE")),
    Way("team", "POST", "/admin/teams/{team}", body={"priority": 1}),
    *(Way("org", method, "/admin/organizations/{org}", status=403) for method in ("GET", "DELETE")),
    Way("org", "POST", "/admin/organizations/{org}", body={"limits": None}, status=403),
    Way("org", "GET", "/admin/organizations", f"after={ID}", status=200),
)
_USAGE = (
    *(Way(kind, "GET", "/admin/usage", f"{kind}={ID}") for kind in ("key", "team")),
    *(
        Way(kind, "GET", route, f"start_time=1800000000&end_time=1800086400&{name}={ID}", status=200)
        for route in ("/v1/organization/usage/{kind}", "/v1/organization/costs")
        for kind, parameter in (("key", "api_key_ids"), ("team", "project_ids"), ("user", "user_ids"))
        for name in (parameter, f"{parameter}[]")
    ),
)
_NEW_SCORES = (
    # A score may come before its request: an absent one is scored for later, and the score is dropped if the request
    # turns out to be another's.
    Way("request", "POST", "/v1/feedback", body={"request_id": ID, "thumbs": "up"}, absent_differs=True),
    Way("request", "POST", "/admin/scores", body={"request_id": ID, "thumbs": "up"}, absent_differs=True),
)
WAYS: tuple[Way, ...] = (
    *(*_RESPONSES, *_CONVERSATIONS, *_CHATS, *_FILES, *_BATCHES),
    *(*_PROMPTS, *_LINKS, *_REQUESTS, *_SCORES, *_WEBHOOKS, *_TENANCY, *_USAGE),
    *_NEW_SCORES,  # last: what they leave would be in lists
)

PLATFORM = frozenset(
    (method, path)
    for path, methods in (
        ("/v1/models/{name:path}", "GET"),
        ("/admin/models/{name:path}", "GET POST DELETE"),
        ("/admin/adapters/{name:path}", "DELETE"),
        ("/admin/weights", "DELETE"),
        ("/demand", "GET"),  # the operator's, by a token of its own
        ("/admin/cache", "DELETE"),  # in Redis, in keys of the organisation: tests/inference/cache
    )
    for method in methods.split()
)
"""Routes whose parameters name what the configuration has for all organisations."""
NAME_CURSORS = frozenset({("GET", "/admin/teams", "after")})
"""Cursors that are places in an order of names, which need not exist."""
OF_MODELS = ("/openai/deployments/{name:path}/", "/v1/engines/{name:path}/")
"""Paths whose parameter is a model's name."""
UNSERVED = ("/v1/audio", "/v1/images", "/v1/videos", "/v1/realtime")
"""Routes that serve no stored objects."""
NOT_NAMES = {
    "org": "tried on every route that has it",
    **dict.fromkeys(("limit", "order", "page", "bucket", "bucket_width", "group_by", "group_by[]"), "form of a list"),
    **dict.fromkeys(("start", "end", "start_time", "end_time"), "times"),
    **dict.fromkeys(("min_cost", "max_cost", "min_latency", "max_latency", "http_status", "wait"), "numbers"),
    **dict.fromkeys(("from", "to", "baseline", "candidate", "label"), "versions of the prompt in the path"),
    **dict.fromkeys(("model", "models", "models[]", "route", "endpoint", "prompt_version"), "the configuration's"),
    **dict.fromkeys(("line_items", "line_items[]"), "models"),
    **dict.fromkeys(("purpose", "operation", "status", "failed", "error_code", "finish_reason", "cache"), "a choice"),
    **dict.fromkeys(("source", "archived", "content", "include[]", "batch", "revoke_keys"), "a choice"),
    **dict.fromkeys(("sizes", "sizes[]", "sources", "sources[]", "context_levels", "context_levels[]"), "a choice"),
    **dict.fromkeys(("vector_store_ids", "vector_store_ids[]"), "nothing has one"),
}
"""Query parameters that name no stored object, and why."""
