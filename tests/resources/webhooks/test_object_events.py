"""Events of responses and batches: recorded once, in the transaction of the state, in OpenAI's form."""

import time
from typing import Literal

import pytest
from openai import OpenAI

from quarterdeck.resources.webhooks.events import BATCH_EVENTS, RESPONSE_EVENTS, new_secret, signed_headers
from quarterdeck.resources.webhooks.object_events import ObjectEvents
from quarterdeck.settings.webhooks import WebhooksConfig
from quarterdeck.store.database import Database
from quarterdeck.store.webhook_outbox import WebhookOutbox
from quarterdeck.store.webhooks import WebhookStore

ORG = "acme"
TYPES = (*RESPONSE_EVENTS, *BATCH_EVENTS)


async def an_endpoint(database: Database, types: list[str] | None = None) -> str:
    made = await WebhookStore(database).create(
        org=ORG, name="hook", url="http://127.0.0.1:1/", secret=new_secret(), event_types=types, most=9
    )
    return made.id


def events_of(database: Database, max_waiting: int = 100) -> ObjectEvents:
    return ObjectEvents(WebhookOutbox(database), lambda: WebhooksConfig(max_waiting=max_waiting))


@pytest.mark.parametrize("name", TYPES)
async def test_openais_sdk_unwraps_each_event(database: Database, name: str) -> None:
    await an_endpoint(database)
    now = time.time()
    await events_of(database).record(name, ORG, "obj_1", now=now)
    (leased,) = await WebhookOutbox(database).lease(now=now, seconds=9, limit=9, per_endpoint=9)
    secret = leased.endpoint.secret
    headers = signed_headers(leased.delivery.event, int(now), leased.body.encode(), [secret])
    event = OpenAI(api_key="none").webhooks.unwrap(leased.body, headers, secret=secret)
    # A type of the SDK that takes any string would accept anything.
    assert type(event).model_fields["type"].annotation == Literal[name]  # type: ignore[valid-type]
    assert (event.type, event.data.id, event.object) == (name, "obj_1", "event")  # type: ignore[union-attr]


async def test_an_event_is_recorded_once_for_an_object(database: Database) -> None:
    endpoint = await an_endpoint(database)
    events = events_of(database)
    for _ in range(3):
        await events.record("batch.completed", ORG, "batch_1", now=1.0)
    await events.record("batch.completed", ORG, "batch_2", now=1.0)
    assert len(await WebhookOutbox(database).list(endpoint, org=ORG)) == 2


async def test_an_event_is_recorded_with_the_state_or_not_at_all(database: Database) -> None:
    endpoint = await an_endpoint(database)
    events = events_of(database)
    with pytest.raises(ZeroDivisionError):
        async with database.begin() as transaction:
            await events.record_on(transaction, "response.failed", ORG, "resp_1", now=1.0)
            raise ZeroDivisionError
    assert await WebhookOutbox(database).list(endpoint, org=ORG) == []
    async with database.begin() as transaction:
        await events.record_on(transaction, "response.failed", ORG, "resp_1", now=1.0)
    assert len(await WebhookOutbox(database).list(endpoint, org=ORG)) == 1


async def test_only_endpoints_of_the_organisation_that_ask_get_it(database: Database) -> None:
    wanted, other = await an_endpoint(database, ["batch.failed"]), await an_endpoint(database, ["batch.expired"])
    outbox = WebhookOutbox(database)
    await events_of(database).record("batch.failed", ORG, "batch_1", now=1.0)
    await events_of(database).record("batch.failed", "other", "batch_2", now=1.0)
    assert len(await outbox.list(wanted, org=ORG)) == 1
    assert await outbox.list(other, org=ORG) == []
