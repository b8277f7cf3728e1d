"""Webhooks are signed, delivered once by any number of workers, and repeated for a day where the receiver is away."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai
import pytest
from standardwebhooks.webhooks import Webhook
from tests.servers import wait_until
from tests.worker.bench import ORG, Bench, a_bench
from tests.worker.process import WorkerProcess
from tests.worker.webhook_receiver import Receiver

from quarterdeck.resources.webhooks.events import BUDGET_THRESHOLD_REACHED, RETRY_SECONDS, new_event, new_secret
from quarterdeck.settings.webhooks import WebhooksConfig
from quarterdeck.store import webhook_outbox
from quarterdeck.store.database import Database
from quarterdeck.store.webhook_outbox import Delivery, WebhookOutbox
from quarterdeck.store.webhooks import WebhookEndpoint, WebhookStore
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker.conditions import Condition
from quarterdeck.worker.webhook_loop import DEAD_SECONDS, KEEP_SECONDS, LEASE_SECONDS, PER_ORG, WebhookLoop, pause_after
from quarterdeck.worker.webhook_sender import WebhookSender

NOW = 1_790_000_000.0


class Post:
    """A worker's webhooks, by a clock that the test sets."""

    def __init__(self, bench: Bench, sender: WebhookSender, timeout: float) -> None:
        self.now = NOW
        self.bench = bench
        self.outbox = WebhookOutbox(bench.database)
        self.store = WebhookStore(bench.database)
        settings = WebhooksConfig(timeout_seconds=timeout)
        condition = Condition("webhooks")
        self.loops = [
            WebhookLoop(self.outbox, sender, lambda: settings, condition, bench.metrics, wall=lambda: self.now)
            for _ in range(2)
        ]
        self.loop = self.loops[0]

    async def endpoint(self, url: str, *, org: str = ORG, types: list[str] | None = None) -> WebhookEndpoint:
        return await self.store.create(org=org, name="hook", url=url, secret=new_secret(), event_types=types, most=50)

    async def record(self, *, key: str | None = None, org: str = ORG, max_waiting: int = 100) -> Any:
        data = {"spent": "1.5", "name": "Zoë"}
        event = new_event(BUDGET_THRESHOLD_REACHED, org, data, now=self.now, key=key, expires=None)
        return await self.outbox.record(event, retry_until=self.now + RETRY_SECONDS, max_waiting=max_waiting)

    async def only(self, endpoint: WebhookEndpoint) -> Delivery:
        (found,) = await self.outbox.list(endpoint.id, org=endpoint.org)
        return found

    def count(self, outcome: str) -> float:
        return self.bench.metrics.webhook_attempts.values.get((outcome,), 0)


@pytest.fixture
async def bench(redis_url: str, sqlite_url: str) -> AsyncIterator[Bench]:
    """No test here waits for a database that is away."""
    async with a_bench(redis_url, sqlite_url, timeout=5.0) as subject:
        yield subject


async def a_post(bench: Bench, *, allows_private: bool = True, timeout: float = 10.0) -> AsyncIterator[Post]:
    sender = WebhookSender(allows_private=lambda: allows_private)
    yield Post(bench, sender, timeout)
    await sender.close()


@pytest.fixture
async def post(bench: Bench) -> AsyncIterator[Post]:
    async for each in a_post(bench):
        yield each


@pytest.fixture
async def any_post(any_bench: Bench) -> AsyncIterator[Post]:
    async for each in a_post(any_bench):
        yield each


async def test_a_delivery_is_signed_as_standard_webhooks_says(any_post: Post) -> None:
    with Receiver() as receiver:
        endpoint = await any_post.endpoint(receiver.url)
        await any_post.record()
        assert await any_post.loop.turn() == 1
        (received,) = receiver.received
    assert received.headers["content-type"] == "application/json"
    assert receiver.paths == ["/hook?token=secret"]
    received.verify(endpoint.secret, tolerance=10**10)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        received.verify(new_secret(), tolerance=10**10)
    event = received.event
    assert (event["id"], event["type"], event["object"]) == (received.id, BUDGET_THRESHOLD_REACHED, "event")
    assert (event["created_at"], event["timestamp"]) == (int(NOW), "2026-09-21T14:13:20Z")
    assert event["data"] == {"spent": "1.5", "name": "Zoë"}
    done = await any_post.only(endpoint)
    assert (done.state, done.attempts, done.status, done.error) == ("delivered", 1, 204, None)
    assert any_post.count("delivered") == 1


async def test_the_reference_library_accepts_a_delivery_of_now(post: Post) -> None:
    post.now = time.time()
    with Receiver() as receiver:
        endpoint = await post.endpoint(receiver.url)
        await post.record()
        await post.loop.turn()
        (received,) = receiver.received
    assert Webhook(endpoint.secret).verify(received.body, received.headers) == received.event


async def test_the_code_of_the_docs_verifies_a_delivery(post: Post) -> None:
    page = (Path(__file__).parents[2] / "docs/webhooks.md").read_text()
    names: dict[str, Any] = {}
    exec(next(block for block in page.split("```python\n") if "def verify" in block).split("```")[0], names)  # noqa: S102
    post.now = time.time()
    with Receiver() as receiver:
        endpoint = await post.endpoint(receiver.url)
        await post.record()
        await post.loop.turn()
        (received,) = receiver.received
    names["verify"](received.body, received.headers, endpoint.secret)
    for body, secret in ((received.body + b" ", endpoint.secret), (received.body, new_secret())):
        with pytest.raises(ValueError, match="not signed"):
            names["verify"](body, received.headers, secret)


async def test_several_workers_deliver_each_event_once(any_post: Post) -> None:
    with Receiver() as receiver:
        for _ in range(3):
            await any_post.endpoint(receiver.url)
        recorded = [await any_post.record() for _ in range(4)]
        for _ in range(4):
            await asyncio.gather(*(loop.turn() for loop in any_post.loops))
        assert len(receiver.received) == 12
        assert {each.id for each in receiver.received} and len({each.id for each in receiver.received}) == 4
    assert all(len(each.deliveries) == 3 for each in recorded)


async def test_an_event_of_a_key_is_recorded_once(any_post: Post) -> None:
    endpoint = await any_post.endpoint("http://127.0.0.1:1/")
    first, again = await any_post.record(key="a"), await any_post.record(key="a")
    assert (first.is_new, again.is_new, again.deliveries) == (True, False, ())
    assert len(await any_post.outbox.list(endpoint.id, org=ORG)) == 1
    assert await any_post.outbox.recorded(ORG, ["a", "b"]) == {"a"}
    assert (await any_post.record(key="a", org="acme")).is_new


async def test_concurrent_workers_record_an_event_of_a_key_once(any_post: Post) -> None:
    await any_post.endpoint("http://127.0.0.1:1/")
    made = await asyncio.gather(*(any_post.record(key="a") for _ in range(4)))
    assert sum(each.is_new for each in made) == 1


async def test_a_failed_delivery_is_repeated_with_growing_pauses_for_a_day(post: Post) -> None:
    with Receiver(status=500) as receiver:
        endpoint = await post.endpoint(receiver.url)
        await post.record()
        pauses = []
        while (found := await post.only(endpoint)).state == "pending":
            pauses.append(found.due - post.now)
            post.now = found.due
            assert await post.loop.turn() == 1
        assert post.now == NOW + RETRY_SECONDS
        assert {each.id for each in receiver.received} == {found.event}
        stamps = [int(each.headers["webhook-timestamp"]) for each in receiver.received]
        assert stamps == sorted(stamps) and len(set(stamps)) == len(stamps)
        receiver.received[-1].verify(endpoint.secret, tolerance=10**10)
    assert found.state == "failed" and 10 <= found.attempts <= 14 and found.error == "HTTP 500"
    assert pauses[:7] == sorted(pauses[:7]) and 5 <= pauses[1] <= 6 and max(pauses) <= 1.2 * 14_400
    assert post.count("failed") == 1 and post.count("retried") == found.attempts - 1
    assert await post.loop.turn() == 0


async def test_a_repetition_that_succeeds_ends_it(post: Post) -> None:
    with Receiver(status=503, headers={"retry-after": "120"}) as receiver:
        endpoint = await post.endpoint(receiver.url)
        await post.record()
        await post.loop.turn()
        assert (await post.only(endpoint)).due == NOW + 120
        receiver.status, post.now = 200, NOW + 119
        assert await post.loop.turn() == 0
        post.now = NOW + 120
        assert await post.loop.turn() == 1
    assert (await post.only(endpoint)).state == "delivered"


async def test_410_disables_the_endpoint_and_ends_its_deliveries(any_post: Post) -> None:
    with Receiver(status=410) as receiver:
        endpoint = await any_post.endpoint(receiver.url)
        await any_post.record()
        await any_post.loop.turn()
        found = await any_post.store.retrieve(endpoint.id, org=ORG)
        assert found.disabled == NOW and "410" in (found.disabled_reason or "")
        assert (await any_post.only(endpoint)).state == "failed"
        assert (await any_post.record()).deliveries == ()
        await any_post.store.enable(endpoint.id, org=ORG)
        receiver.status = 200
        assert len((await any_post.record()).deliveries) == 1
        assert await any_post.loop.turn() == 1


async def test_an_endpoint_of_which_nothing_succeeds_for_three_days_is_disabled(any_post: Post) -> None:
    with Receiver(status=500) as receiver:
        endpoint = await any_post.endpoint(receiver.url)
        for day in range(4):
            any_post.now = NOW + day * RETRY_SECONDS
            await any_post.record()
            any_post.now += RETRY_SECONDS
            await any_post.loop.turn()
            found = await any_post.store.retrieve(endpoint.id, org=ORG)
            if any_post.now - NOW < DEAD_SECONDS:
                assert found.disabled is None
        assert found.disabled and found.disabled_reason == "no delivery has succeeded for 3 days"
        assert (await any_post.record()).deliveries == ()


async def test_a_success_in_between_keeps_an_endpoint(post: Post) -> None:
    with Receiver(status=500) as receiver:
        endpoint = await post.endpoint(receiver.url)
        for day in range(5):
            post.now = NOW + day * RETRY_SECONDS
            await post.record()
            receiver.status = 200 if day == 2 else 500
            if day != 2:
                post.now += RETRY_SECONDS
            await post.loop.turn()
        assert (await post.store.retrieve(endpoint.id, org=ORG)).disabled is None


async def test_redirects_are_failures(post: Post) -> None:
    with Receiver() as target, Receiver(status=307, headers={"location": target.url}) as receiver:
        endpoint = await post.endpoint(receiver.url)
        await post.record()
        await post.loop.turn()
        assert target.received == []
    assert (await post.only(endpoint)).error == "HTTP 307"


async def test_private_addresses_are_not_reached(bench: Bench) -> None:
    async for post in a_post(bench, allows_private=False):
        with Receiver() as receiver:
            endpoint = await post.endpoint(receiver.url)
            port = receiver.url.split(":")[2].split("/")[0]
            named = await post.endpoint(f"http://localhost:{port}/")
            await post.record()
            await post.loop.turn()
            assert receiver.received == []
        for each in (endpoint, named):
            assert "private address" in ((await post.only(each)).error or "")


async def test_a_name_is_checked_as_it_is_resolved_for_the_connection(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS says something private at the moment of the delivery, whatever it said before."""

    def resolve(host: str, port: int, *_: Any, **__: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    for allows_private in (False, True):
        async for post in a_post(bench, allows_private=allows_private):
            with Receiver() as receiver:
                endpoint = await post.endpoint(receiver.url.replace("127.0.0.1", "hooks.example.com"))
                await post.record()
                await post.loop.turn()
                found = await post.only(endpoint)
                assert len(receiver.received) == (1 if allows_private else 0)
            assert allows_private or found.error == "the host has no public address"
            await post.store.delete(endpoint.id, org=ORG)


async def test_a_receiver_that_hangs_leaves_others_their_places(bench: Bench) -> None:
    hold = threading.Event()
    async for post in a_post(bench, timeout=20.0):
        with Receiver(hold=hold) as hanging, Receiver() as healthy:
            await post.endpoint(hanging.url)
            good = await post.endpoint(healthy.url)
            for _ in range(12):
                await post.record()
            stop = asyncio.Event()
            task = asyncio.create_task(post.loop.run(stop))
            while any(each.state == "pending" for each in await post.outbox.list(good.id, org=ORG)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            assert len(hanging.received) <= 4
            hold.set()
            stop.set()
            await task


async def test_receivers_of_one_organisation_that_hang_leave_others_their_places(bench: Bench) -> None:
    hold = threading.Event()
    async for post in a_post(bench, timeout=20.0):
        with Receiver(hold=hold) as hanging, Receiver() as healthy:
            for _ in range(12):
                await post.endpoint(hanging.url)
            for _ in range(4):
                await post.record()
            good = await post.endpoint(healthy.url, org="acme")
            await post.record(org="acme")
            stop = asyncio.Event()
            task = asyncio.create_task(post.loop.run(stop))
            while (await post.only(good)).state == "pending":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            assert len(hanging.received) <= PER_ORG
            hold.set()
            stop.set()
            await task


async def test_a_delivery_that_takes_too_long_fails(bench: Bench) -> None:
    async for post in a_post(bench, timeout=0.3):
        with Receiver(hold=threading.Event()) as receiver:
            endpoint = await post.endpoint(receiver.url)
            await post.record()
            await post.loop.turn()
            assert "timed out" in ((await post.only(endpoint)).error or "")


async def test_an_endless_response_is_not_read_to_its_end(bench: Bench) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n")
        with suppress(ConnectionError):
            while True:
                writer.write(b"x" * 65_536)
                await writer.drain()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async for post in a_post(bench):
        endpoint = await post.endpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        await post.record()
        await post.loop.turn()
        assert (await post.only(endpoint)).state == "delivered"
    server.close()


def test_an_event_that_is_too_large_is_not_made() -> None:
    with pytest.raises(ValueError, match="larger"):
        new_event("x.y", ORG, {"text": "x" * 20_000}, now=NOW, expires=None)


async def test_the_lease_of_a_dead_worker_expires(any_post: Post) -> None:
    with Receiver() as receiver:
        endpoint = await any_post.endpoint(receiver.url)
        await any_post.record()
        (dead,) = await any_post.outbox.lease(now=NOW, seconds=LEASE_SECONDS, limit=9, per_endpoint=4)
        assert await any_post.loop.turn() == 0
        any_post.now = NOW + LEASE_SECONDS
        assert await any_post.loop.turn() == 1
        assert len(receiver.received) == 1
    late = {"now": NOW, "due": NOW, "status": None, "error": "late"}
    assert not await any_post.outbox.finish(dead, "failed", **late)  # type: ignore[arg-type]
    assert (await any_post.only(endpoint)).state == "delivered"


async def test_the_queue_of_an_organisation_is_bounded(any_post: Post) -> None:
    await any_post.endpoint("http://127.0.0.1:1/")
    made = [await any_post.record(max_waiting=2) for _ in range(3)]
    assert [(len(each.deliveries), each.dropped) for each in made] == [(1, 0), (1, 0), (0, 1)]
    await any_post.endpoint("http://127.0.0.1:1/", org="acme")
    assert len((await any_post.record(org="acme", max_waiting=2)).deliveries) == 1


async def test_only_endpoints_that_ask_for_a_type_get_it(any_post: Post) -> None:
    await any_post.endpoint("http://127.0.0.1:1/", types=["other"])
    assert await any_post.store.subscribed_orgs(BUDGET_THRESHOLD_REACHED) == []
    wanted = await any_post.endpoint("http://127.0.0.1:1/", types=[BUDGET_THRESHOLD_REACHED])
    assert await any_post.store.subscribed_orgs(BUDGET_THRESHOLD_REACHED) == [ORG]
    (made,) = (await any_post.record()).deliveries
    assert (await any_post.only(wanted)).id == made


async def test_old_deliveries_and_expired_events_are_removed(any_post: Post) -> None:
    with Receiver() as receiver:
        endpoint = await any_post.endpoint(receiver.url)
        event = new_event("x.y", ORG, {}, now=NOW, key="k", expires=NOW + 10)
        await any_post.outbox.record(event, retry_until=NOW, max_waiting=9, endpoint=endpoint.id)
        await any_post.loop.turn()
    await any_post.outbox.clean(now=NOW + 20, keep_seconds=100)
    assert await any_post.outbox.recorded(ORG, ["k"]) == {"k"}
    await any_post.outbox.clean(now=NOW + 101, keep_seconds=100)
    await any_post.outbox.clean(now=NOW + 101, keep_seconds=100)
    assert await any_post.outbox.recorded(ORG, ["k"]) == set()
    assert await any_post.outbox.list(endpoint.id, org=ORG) == []


async def test_all_that_is_old_is_removed_however_much_it_is(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_outbox, "AT_ONCE", 2)
    with Receiver() as receiver:
        endpoint = await post.endpoint(receiver.url)
        for at in range(7):
            event = new_event("x.y", ORG, {}, now=NOW, key=f"k{at}", expires=NOW + 10)
            await post.outbox.record(event, retry_until=NOW + 10, max_waiting=9, endpoint=endpoint.id)
        while await post.loop.turn():
            pass
        post.now = NOW + KEEP_SECONDS + 10
        for _ in range(6):  # each turn removes two deliveries, and two events that none needs any more
            await post.loop.turn()
    assert await post.outbox.list(endpoint.id, org=ORG) == []
    assert await post.outbox.recorded(ORG, [f"k{at}" for at in range(7)]) == set()


async def test_a_delivery_to_an_endpoint_that_was_deleted_as_it_was_recorded_does_not_wait_for_ever(
    any_post: Post,
) -> None:
    event = new_event("x.y", ORG, {}, now=NOW, key="k", expires=None)
    (made,) = (await any_post.outbox.record(event, retry_until=NOW + 10, max_waiting=1, endpoint="whk_gone")).deliveries
    assert await any_post.loop.turn() == 0
    await any_post.outbox.clean(now=NOW + 11, keep_seconds=KEEP_SECONDS)
    found = await any_post.outbox.retrieve(made)
    assert found is not None and found.state == "failed"


async def test_a_replaced_secret_signs_for_another_day_where_asked(post: Post) -> None:
    with Receiver() as receiver:
        endpoint = await post.endpoint(receiver.url)
        fresh = await post.store.rotate(endpoint.id, org=ORG, secret=new_secret(), keep_old=True)
        post.now = time.time()
        await post.record()
        await post.loop.turn()
        receiver.received[-1].verify(endpoint.secret)
        receiver.received[-1].verify(fresh.secret)
        post.now += 86_401
        await post.record()
        await post.loop.turn()
        receiver.received[-1].verify(fresh.secret, tolerance=10**6)
        with pytest.raises(openai.InvalidWebhookSignatureError):
            receiver.received[-1].verify(endpoint.secret, tolerance=10**6)


def test_pauses_grow_to_four_hours() -> None:
    assert [pause_after(n, 0.0) for n in (1, 2, 3, 20, 500)] == [5, 20, 80, 14_400, 14_400]
    assert pause_after(1, 1.0) == 6
    assert pause_after(1, 0.0, 60.0) == 60


async def test_a_webhook_that_a_killed_worker_was_posting_is_posted_again_with_the_same_id(
    tmp_path: Path, redis_url: str, sqlite_url: str
) -> None:
    config = tmp_path / "quarterdeck.yaml"
    config.write_text("models: []\nwebhooks: {allow_private_addresses: true}\n")
    database = Database(sqlite_url)
    outbox, hold = WebhookOutbox(database), threading.Event()
    with Receiver(hold=hold) as receiver:
        endpoint = await WebhookStore(database).create(
            org="default", name="hook", url=receiver.url, secret=new_secret(), event_types=None, most=50
        )
        now = time.time()
        event = new_event(BUDGET_THRESHOLD_REACHED, "default", {"spent": "1"}, now=now, key=None, expires=None)
        await outbox.record(event, retry_until=now + RETRY_SECONDS, max_waiting=100)
        environment = {"QUARTERDECK_REDIS_URL": redis_url, "QUARTERDECK_DATABASE_URL": sqlite_url}
        worker = WorkerProcess(tmp_path / "state", environment | {"QUARTERDECK_CONFIG": str(config)})
        try:
            await asyncio.to_thread(wait_until, lambda: bool(receiver.received), seconds=90)
        finally:
            worker.kill()
        hold.set()
        (delivery,) = await outbox.list(endpoint.id, org="default")
        assert (delivery.state, delivery.attempts) == ("pending", 0)
        sender = WebhookSender(allows_private=lambda: True)
        loop = WebhookLoop(
            outbox,
            sender,
            WebhooksConfig,
            Condition("webhooks"),
            WorkerMetrics(),
            wall=lambda: now + LEASE_SECONDS + 60,
        )
        assert await loop.turn() == 1
        await sender.close()
    (delivery,) = await outbox.list(endpoint.id, org="default")
    await database.close()
    first, second = receiver.received
    assert (first.id, first.body) == (second.id, second.body)
    for received in (first, second):
        received.verify(endpoint.secret, tolerance=10**6)
    assert (delivery.state, delivery.attempts) == ("delivered", 1)
