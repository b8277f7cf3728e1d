"""`/admin/webhooks`: endpoints to which events of the organisation are posted.

`/v1/webhook_endpoints` is the same in the place where OpenAI's SDK looks for it (`client.webhooks`). The worker makes
the deliveries.
"""

import asyncio
import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from quarterdeck.gateway.dependencies import AdminDep, Parts, PartsDep
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.resources.tenancy.objects import page
from quarterdeck.resources.tenancy.requests import given
from quarterdeck.resources.webhooks.events import EVENT_TYPES, TEST, new_event, new_secret
from quarterdeck.resources.webhooks.requests import (
    SecretRotation,
    WebhookRequest,
    WebhookTest,
    WebhookUpdate,
    check_address,
    delivery_object,
    endpoint_object,
)
from quarterdeck.store.webhook_outbox import Delivery

router = APIRouter()
PREFIXES = ("/admin/webhooks", "/v1/webhook_endpoints")

TEST_SECONDS = 20.0
"""How long a test waits for the worker: its poll, and the longest that a receiver usually takes."""
TEST_POLL_SECONDS = 0.25
EVENT_SECONDS = 30 * 86_400.0

Limit = Annotated[int, Query(ge=1, le=100)]
After = Annotated[str | None, Query(max_length=64)]


async def create_webhook(body: WebhookRequest, parts: PartsDep, admin: AdminDep) -> Response:
    """Create an endpoint. Its signing secret is returned here and nowhere else."""
    settings = parts.config.webhooks
    check_address(body.url, allows_private=settings.allow_private_addresses)
    secret = new_secret()
    made = await parts.webhooks.create(
        org=admin.org,
        name=body.name,
        url=body.url,
        secret=secret,
        event_types=body.event_types,
        most=settings.max_endpoints,
    )
    if body.enabled is False:
        made = await parts.webhooks.disable(made.id, org=admin.org, reason="disabled by an admin")
    return json_response(endpoint_object(made, secret=secret), 201)


async def list_webhooks(parts: PartsDep, admin: AdminDep, limit: Limit = 20, after: After = None) -> Response:
    """List endpoints, newest first."""
    rows = await parts.webhooks.list(org=admin.org, limit=limit + 1, after=after)
    return json_response(page([endpoint_object(row) for row in rows], limit))


async def list_event_types(parts: PartsDep, admin: AdminDep) -> Response:
    """List the types of events that an endpoint can ask for."""
    return json_response({"object": "list", "data": list(EVENT_TYPES)})


async def retrieve_webhook(webhook_id: str, parts: PartsDep, admin: AdminDep) -> Response:
    """Retrieve an endpoint without its secret."""
    return json_response(endpoint_object(await parts.webhooks.retrieve(webhook_id, org=admin.org)))


async def update_webhook(webhook_id: str, body: WebhookUpdate, parts: PartsDep, admin: AdminDep) -> Response:
    """Change, enable or disable an endpoint. Fields left out keep their value."""
    changes = given(body)
    if body.url is not None:
        check_address(body.url, allows_private=parts.config.webhooks.allow_private_addresses)
    enabled = changes.pop("enabled", None)
    found = await parts.webhooks.update(webhook_id, org=admin.org, **changes)
    if enabled is not None and enabled != (found.disabled is None):
        if enabled:
            found = await parts.webhooks.enable(webhook_id, org=admin.org)
        else:
            found = await parts.webhooks.disable(webhook_id, org=admin.org, reason="disabled by an admin")
    return json_response(endpoint_object(found))


async def delete_webhook(webhook_id: str, parts: PartsDep, admin: AdminDep) -> Response:
    """Delete an endpoint. What waits for it is not sent."""
    await parts.webhooks.delete(webhook_id, org=admin.org)
    return json_response({"id": webhook_id, "object": "webhook_endpoint.deleted", "deleted": True})


async def rotate_secret(
    webhook_id: str, parts: PartsDep, admin: AdminDep, body: SecretRotation | None = None
) -> Response:
    """Replace an endpoint's signing secret. The new one is returned here and nowhere else."""
    secret = new_secret()
    keeps = body is not None and body.keep_old_secret_active_for_24_hours
    found = await parts.webhooks.rotate(webhook_id, org=admin.org, secret=secret, keep_old=keeps)
    return json_response(endpoint_object(found, secret=secret))


async def send_test(webhook_id: str, parts: PartsDep, admin: AdminDep, body: WebhookTest | None = None) -> Response:
    """Post a `webhook.test` event to an endpoint, by the worker and once, and wait for the outcome. `status` is
    `delivered`, `failed` (`error` says why) or, after 20 s, `pending`."""
    endpoint = await parts.webhooks.retrieve(webhook_id, org=admin.org)
    now = time.time()
    data = {"message": "This is a test.", "webhook_endpoint_id": endpoint.id}
    event = new_event(TEST, admin.org, data, now=now, expires=now + EVENT_SECONDS)
    recorded = await parts.outbox.record(
        event, retry_until=now, max_waiting=parts.config.webhooks.max_waiting, endpoint=endpoint.id
    )
    delivery = await _outcome(parts, recorded.deliveries[0]) if recorded.deliveries else None
    made: dict[str, Any] = {
        "object": "webhook_endpoint.test",
        "webhook_endpoint_id": endpoint.id,
        "event_id": event.id,
        "event_type": event.type,
        "status": "pending" if delivery is None else delivery.state,
        "success": delivery is not None and delivery.state == "delivered",
        "status_code": None if delivery is None else delivery.status,
        "error": "too many deliveries wait" if recorded.dropped else None if delivery is None else delivery.error,
    }
    return json_response(made)


async def list_deliveries(
    webhook_id: str, parts: PartsDep, admin: AdminDep, limit: Limit = 20, after: After = None
) -> Response:
    """List deliveries to an endpoint, newest first: attempts, last status and error. Finished ones stay for 30 days."""
    rows = await parts.outbox.list(webhook_id, org=admin.org, limit=limit + 1, after=after)
    return json_response(page([delivery_object(row) for row in rows], limit))


async def _outcome(parts: Parts, delivery_id: str) -> Delivery | None:
    """The delivery once it is finished, or as it is after TEST_SECONDS."""
    until = time.monotonic() + TEST_SECONDS
    while True:
        found = await parts.outbox.retrieve(delivery_id)
        if found is None or found.state != "pending" or time.monotonic() > until:
            return found
        await asyncio.sleep(TEST_POLL_SECONDS)


for path in ("/admin/webhooks/event_types", "/v1/webhook_event_types"):
    router.get(path)(list_event_types)
for prefix in PREFIXES:
    router.post(prefix)(create_webhook)
    router.get(prefix)(list_webhooks)
    router.get(f"{prefix}/{{webhook_id}}")(retrieve_webhook)
    router.post(f"{prefix}/{{webhook_id}}")(update_webhook)
    router.delete(f"{prefix}/{{webhook_id}}")(delete_webhook)
    router.post(f"{prefix}/{{webhook_id}}/rotate_secret")(rotate_secret)
    router.post(f"{prefix}/{{webhook_id}}/test")(send_test)
    router.get(f"{prefix}/{{webhook_id}}/deliveries")(list_deliveries)
