"""Events that webhooks carry: their types, their bodies, and the signatures of Standard Webhooks 1.0. Pure.

A body is an event object as OpenAI's webhooks have it (`id`, `object`, `type`, `created_at`, `data`), with the
`timestamp` that Standard Webhooks recommends. The event's id is the `webhook-id` of every delivery and attempt, so that
a receiver can tell a repetition.
"""

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from quarterdeck import ids
from quarterdeck.store.webhook_outbox import Event

BUDGET_THRESHOLD_REACHED = "budget.threshold_reached"
TEST = "webhook.test"
"""Sent only on request, to one endpoint."""
RESPONSE_EVENTS = ("response.completed", "response.failed", "response.cancelled", "response.incomplete")
"""Of background responses."""
BATCH_EVENTS = ("batch.completed", "batch.failed", "batch.expired", "batch.cancelled")
EVENT_TYPES = (BUDGET_THRESHOLD_REACHED, *RESPONSE_EVENTS, *BATCH_EVENTS)
"""What an endpoint may ask for."""
MAX_BODY = 20_000
"""Characters: what Standard Webhooks recommends as the most."""
RETRY_SECONDS = 86_400.0
"""How long an event is worth an attempt."""
SECRET_PREFIX = "whsec_"  # noqa: S105  # the prefix of every secret
SECRET_BYTES = 32
"""Standard Webhooks: 24 to 64."""


def new_event(
    type: str, org: str, data: Mapping[str, Any], *, now: float, key: str | None = None, expires: float | None
) -> Event:
    """An event of this moment. `key` and `expires`: see `Event`. Raises ValueError where `data` is too large: what is
    large is for the receiver to fetch by an id."""
    id = ids.object_id("evt")
    body = {
        "id": id,
        "object": "event",
        "type": type,
        "created_at": int(now),
        "timestamp": datetime.fromtimestamp(int(now), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "data": data,
    }
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    if len(text) > MAX_BODY:
        raise ValueError(f"the data of a {type} event is larger than {MAX_BODY} characters")
    return Event(id=id, org=org, type=type, body=text, created=now, key=key, expires=expires)


def new_secret() -> str:
    """A new signing secret."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def signed_headers(id: str, second: int, body: bytes, signing: Sequence[str]) -> dict[str, str]:
    """The headers of a delivery at `second` (Unix), signed with each of the secrets."""
    content = b"%b.%d.%b" % (id.encode(), second, body)
    return {
        "webhook-id": id,
        "webhook-timestamp": str(second),
        "webhook-signature": " ".join(f"v1,{_signature(secret, content)}" for secret in signing),
    }


def _signature(secret: str, content: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    return base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
