"""An organisation's cache over the admin API: its size and its purge, without touching another's."""

import pytest
from tests.gateway.fakes import ADMIN, CONFIG, USER, Client, FakePipeline, config, parts
from tests.inference.cache.samples import store_entry

from quarterdeck.gateway.app import create_app
from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle
from quarterdeck.inference.cache import store
from quarterdeck.inference.cache.entry import Entry
from quarterdeck.net.redis import Redis

PATH = "/admin/cache"
KEYS = ["a" * 40, "b" * 40, "c" * 40]


@pytest.fixture
async def app(redis: Redis) -> RequestLifecycle:
    for number, key in enumerate(KEYS):
        entry = Entry(0.0, "chat" if number else "org/emb", b"{}")
        await store_entry(redis, "default", key, entry, ttl_seconds=60, max_mb=1)
    await store_entry(redis, "other", KEYS[0], Entry(0.0, "chat", b"{}"), ttl_seconds=60, max_mb=1)
    return create_app(parts(redis=redis))


async def test_what_is_held_is_told(app: RequestLifecycle) -> None:
    held = (await Client(app, key=ADMIN).get(PATH)).json
    assert (held["object"], held["entries"], held["max_bytes"], held["is_on"]) == ("cache", 3, 64 * 2**20, False)
    assert held["bytes"] > 0


async def test_it_is_told_whether_any_model_has_one(redis: Redis) -> None:
    pipeline = FakePipeline(config(CONFIG + "cache: {policies: {chat: {ttl_seconds: 5}}}"))
    assert (await Client(create_app(parts(pipeline, redis=redis)), key=ADMIN).get(PATH)).json["is_on"]


async def test_one_answer_one_model_or_all_are_forgotten(app: RequestLifecycle, redis: Redis) -> None:
    admin = Client(app, key=ADMIN)
    assert (await admin.request("DELETE", f"{PATH}?key={KEYS[1]}")).json == {"object": "cache", "deleted": 1}
    assert (await admin.request("DELETE", f"{PATH}?model=org/emb")).json["deleted"] == 1
    assert (await admin.request("DELETE", PATH)).json["deleted"] == 1
    assert (await admin.request("DELETE", PATH)).json["deleted"] == 0
    assert (await store.size(redis, "other")).entries == 1


async def test_a_key_that_is_none_is_refused(app: RequestLifecycle) -> None:
    assert (await Client(app, key=ADMIN).request("DELETE", f"{PATH}?key=*")).status == 400


async def test_only_admins_may(app: RequestLifecycle) -> None:
    assert (await Client(app, key=USER).get(PATH)).status == 403
    assert (await Client(app, key=USER).request("DELETE", PATH)).status == 403


async def test_a_redis_that_is_away_is_a_503() -> None:
    app = create_app(parts())
    answer = await Client(app, key=ADMIN).request("DELETE", PATH)
    assert (answer.status, answer.json["error"]["code"]) == (503, "cache_unavailable")
