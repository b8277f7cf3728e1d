"""Admins manage the webhook endpoints of their organisation; secrets are shown once."""

import asyncio
import time
from typing import Any

import httpx
import openai
import pytest
from tests.gateway.fakes import CONFIG, FakePipeline, config, parts
from tests.gateway.routes.admin_api import BOSS, STRANGER, WORKER, ask, refused_body

from quarterdeck.gateway.app import create_app
from quarterdeck.gateway.dependencies import Parts
from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle
from quarterdeck.resources.webhooks.events import EVENT_TYPES, TEST, new_event
from quarterdeck.store.database import Database
from quarterdeck.store.webhook_outbox import WebhookOutbox

WEBHOOKS, SDK = "/admin/webhooks", "/v1/webhook_endpoints"
URL = "https://hooks.example.com/a?b=c"
THRESHOLD = "budget.threshold_reached"


async def an_endpoint(app: RequestLifecycle, **fields: Any) -> Any:
    return await ask(app, "POST", WEBHOOKS, {"url": URL, **fields}, status=201)


async def test_the_secret_is_shown_where_it_is_made_only(app: RequestLifecycle) -> None:
    created = await an_endpoint(app, name="ops")
    secret = created.pop("signing_secret")
    assert secret.startswith("whsec_") and len(secret) > 40
    assert created["signing_secret_hint"] == f"whsec_…{secret[-4:]}"
    assert (created["event_types"], created["all_event_types"], created["enabled"]) == (list(EVENT_TYPES), True, True)
    for path in (WEBHOOKS, SDK):
        assert await ask(app, "GET", f"{path}/{created['id']}") == created
        assert (await ask(app, "GET", path))["data"] == [created]
    rotated = await ask(app, "POST", f"{WEBHOOKS}/{created['id']}/rotate_secret", {})
    assert rotated["signing_secret"] not in (secret, None)


async def test_endpoints_are_updated_disabled_and_deleted(app: RequestLifecycle) -> None:
    path = f"{WEBHOOKS}/{(await an_endpoint(app, event_types=[THRESHOLD]))['id']}"
    changed = await ask(app, "POST", path, {"name": "new", "url": "https://example.org/", "event_types": None})
    assert (changed["name"], changed["url"], changed["all_event_types"]) == ("new", "https://example.org/", True)
    off = await ask(app, "POST", path, {"enabled": False})
    assert (off["enabled"], off["disabled_reason"]) == (False, "disabled by an admin")
    assert (await ask(app, "POST", path, {"enabled": True}))["enabled"] is True
    assert (await ask(app, "DELETE", path))["deleted"] is True
    assert (await ask(app, "GET", path, status=404))["code"] == "webhook_endpoint_not_found"


async def test_another_organisations_endpoint_does_not_exist(app: RequestLifecycle) -> None:
    id = (await an_endpoint(app))["id"]
    for method, path in (("GET", ""), ("POST", ""), ("DELETE", ""), ("GET", "/deliveries"), ("POST", "/test")):
        body = {} if method == "POST" else None
        await ask(app, method, f"{WEBHOOKS}/{id}{path}", body, key=STRANGER, status=404)
    assert (await ask(app, "GET", WEBHOOKS, key=STRANGER))["data"] == []
    assert (await ask(app, "GET", WEBHOOKS, key=WORKER, status=403))["code"] == "admin_key_required"


async def test_another_organisation_can_not_delete_the_deliveries_of_an_endpoint(
    app: RequestLifecycle, made: Parts
) -> None:
    id = (await an_endpoint(app))["id"]
    now = time.time()
    event = new_event(TEST, "default", {"message": "x"}, now=now, expires=now + 3600)
    await made.outbox.record(event, retry_until=now, max_waiting=10, endpoint=id)
    await ask(app, "DELETE", f"{WEBHOOKS}/{id}", key=STRANGER, status=404)
    assert len((await ask(app, "GET", f"{WEBHOOKS}/{id}/deliveries"))["data"]) == 1


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://example.com/",
        "https://",
        "https://user:pass@example.com/",
        "https://example.com/\n",
        "https://exämple.com/",
        "https://example.com:99999/",
        "http://localhost:8000/",
        "http://127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://169.254.169.254/latest/meta-data",
        "http://100.64.0.1/",
        "http://redis:6379/",
        "http://worker.default.svc/",
        "https://" + "a" * 3000 + ".com/",
    ],
)
async def test_a_url_that_must_not_be_posted_to_is_a_400(app: RequestLifecycle, url: str) -> None:
    assert await refused_body(app, WEBHOOKS, {"url": url}) == "url"
    id = (await an_endpoint(app))["id"]
    assert await refused_body(app, f"{WEBHOOKS}/{id}", {"url": url}) == "url"


@pytest.mark.parametrize(
    ("body", "param"),
    [({"event_types": ["a.b"]}, "event_types"), ({"event_types": []}, "event_types"), ({"urls": 1}, "urls")],
)
async def test_bad_fields_are_named(app: RequestLifecycle, body: dict[str, Any], param: str) -> None:
    assert (await refused_body(app, WEBHOOKS, {"url": URL, **body})).startswith(param)


async def test_private_addresses_are_allowed_by_a_setting_and_endpoints_bounded(
    made: Parts, database: Database
) -> None:
    text = CONFIG + "\nwebhooks: {allow_private_addresses: true, max_endpoints: 1}\n"
    app = create_app(parts(FakePipeline(config(text)), keys=made.keys, database=database))
    await ask(app, "POST", WEBHOOKS, {"url": "http://127.0.0.1:9/"}, status=201)
    error = await ask(app, "POST", WEBHOOKS, {"url": "http://127.0.0.1:9/"}, status=409)
    assert error["code"] == "too_many_webhook_endpoints"
    assert len((await ask(app, "GET", WEBHOOKS))["data"]) == 1


async def test_a_test_waits_for_the_worker_and_tells_the_outcome(app: RequestLifecycle, database: Database) -> None:
    id = (await an_endpoint(app, event_types=[THRESHOLD]))["id"]
    outbox = WebhookOutbox(database)

    async def work() -> None:
        while not (leased := await outbox.lease(now=2e9, seconds=60, limit=9, per_endpoint=4)):  # noqa: ASYNC110  # another process leases it
            await asyncio.sleep(0.02)
        done = {"now": 2e9, "due": 2e9, "status": 500, "error": "HTTP 500"}
        await outbox.finish(leased[0], "failed", **done)  # type: ignore[arg-type]

    working = asyncio.create_task(work())
    found = await ask(app, "POST", f"{WEBHOOKS}/{id}/test", {})
    await working
    assert (found["success"], found["status"], found["status_code"], found["error"]) == (
        False,
        "failed",
        500,
        "HTTP 500",
    )
    (delivery,) = (await ask(app, "GET", f"{WEBHOOKS}/{id}/deliveries"))["data"]
    assert delivery.items() >= {"event_type": "webhook.test", "status": "failed", "attempts": 1}.items()


async def test_openais_sdk_manages_endpoints(app: RequestLifecycle) -> None:
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]  # it is an ASGI app
    async with (
        httpx.AsyncClient(transport=transport) as http,
        openai.AsyncOpenAI(
            base_url="http://gateway/v1", api_key=BOSS, http_client=http, _strict_response_validation=True
        ) as client,
    ):
        hooks: Any = client.webhooks  # its types name OpenAI's events only
        made = await hooks.create(name="ops", url=URL, event_types=[THRESHOLD])
        assert made.signing_secret.startswith("whsec_")
        assert (await hooks.update(made.id, name="new")).name == "new"
        assert (await hooks.rotate_secret(made.id)).signing_secret != made.signing_secret
        assert [each.id async for each in hooks.list(limit=1)] == [made.id]
        assert (await hooks.event_types.list()).data == list(EVENT_TYPES)
        assert (await hooks.delete(made.id)).deleted
        with pytest.raises(openai.NotFoundError):
            await hooks.retrieve(made.id)
