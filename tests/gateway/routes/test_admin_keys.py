"""Keys over a real database: a secret is shown once, and a revoked key is refused at once."""

from pathlib import Path
from typing import Any

import pytest
from tests.gateway.fakes import Client, FakePublisher, parts
from tests.gateway.routes.admin_api import BOSS, JSON, KEYS, STRANGER, WORKER, ask, refused_body

from quarterdeck import ids
from quarterdeck.gateway.app import create_app
from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle
from quarterdeck.resources.tenancy.changes import Change
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore

PATH = KEYS


@pytest.fixture
async def keys(database: Database) -> KeyStore:
    store = KeyStore(database)
    await store.create(secret=BOSS, name="boss", is_admin=True)
    await store.create(secret=WORKER, name="worker")
    await store.create(secret=STRANGER, name="stranger", org="other", is_admin=True)
    return store


@pytest.fixture
def app(keys: KeyStore, database: Database) -> RequestLifecycle:
    return create_app(parts(keys=keys, database=database))


async def create(app: RequestLifecycle, **body: Any) -> dict[str, Any]:
    answer = await Client(app, key=BOSS).post(PATH, {"name": "new", **body}, headers=JSON)
    assert answer.status == 201
    return dict(answer.json)


async def test_a_key_that_was_made_works_and_is_shown_once(app: RequestLifecycle, keys: KeyStore) -> None:
    made = await create(app, team="red", models=["chat"], limits={"max_tokens": 5}, expires_in_days=1)
    secret = made["key"]
    assert secret.startswith("sk-qd-")
    assert (made["object"], made["name"], made["team"], made["hint"]) == ("api_key", "new", "red", secret[-4:])
    assert (made["models"], made["limits"], made["admin"]) == (["chat"], {"max_tokens": 5}, False)
    assert made["expires"] - made["created"] in (86_399, 86_400)
    assert (await Client(app, key=secret).get("/v1/models")).status == 200
    for path in (PATH, f"{PATH}/{made['id']}"):
        assert secret not in (await Client(app, key=BOSS).get(path)).body.decode()
    assert secret not in repr(await keys.find(ids.digest(secret)))


async def test_the_databases_files_hold_no_secret(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    await database.migrate()
    store = KeyStore(database)
    await store.create(secret=BOSS, name="boss", is_admin=True)
    secret = (await create(create_app(parts(keys=store))))["key"]
    files = [file for file in Path(sqlite_url.partition(":///")[2]).parent.iterdir() if file.is_file()]
    assert any(secret[-4:].encode() in file.read_bytes() for file in files)
    assert not any(secret.encode() in file.read_bytes() for file in files)
    await database.close()


async def test_only_an_admin_key_opens_it(app: RequestLifecycle) -> None:
    for method, path in (("GET", PATH), ("POST", PATH), ("GET", f"{PATH}/x"), ("DELETE", f"{PATH}/x")):
        answer = await Client(app, key=WORKER).request(method, path, b"{}", headers=JSON)
        assert (answer.status, answer.error["type"]) == (403, "permission_error"), (method, path)


async def test_a_revoked_key_is_refused_at_once(app: RequestLifecycle) -> None:
    made = await create(app)
    client = Client(app, key=made["key"])
    assert (await client.get("/v1/models")).status == 200
    answer = await Client(app, key=BOSS).request("DELETE", f"{PATH}/{made['id']}")
    assert answer.json == {"id": made["id"], "object": "api_key", "deleted": True}
    assert (await client.get("/v1/models")).error["code"] == "invalid_api_key"
    again = await Client(app, key=BOSS).get(f"{PATH}/{made['id']}")
    assert again.json["revoked"] is not None


async def test_every_change_is_told_to_the_other_gateways(keys: KeyStore) -> None:
    publisher = FakePublisher()
    app = create_app(parts(keys=keys, publisher=publisher))
    key = await create(app)
    await Client(app, key=BOSS).request("DELETE", f"{PATH}/{key['id']}")
    assert publisher.published == [Change("default", key=key["id"])] * 2


async def test_an_admin_sees_and_ends_only_the_keys_of_its_org(app: RequestLifecycle, keys: KeyStore) -> None:
    mine = await create(app)
    other = Client(app, key=STRANGER)
    assert [key["name"] for key in (await other.get(PATH)).json["data"]] == ["stranger"]
    assert (await other.get(f"{PATH}/{mine['id']}")).status == 404
    assert (await other.request("DELETE", f"{PATH}/{mine['id']}")).status == 404
    assert (await Client(app, key=mine["key"]).get("/v1/models")).status == 200


async def test_a_list_comes_in_pages_newest_first(app: RequestLifecycle) -> None:
    names = [f"k{i}" for i in range(5)]
    for name in names:
        await create(app, name=name)
    client = Client(app, key=BOSS)
    first = (await client.get(f"{PATH}?limit=3")).json
    rest = (await client.get(f"{PATH}?limit=3&after={first['last_id']}")).json
    assert [key["name"] for key in first["data"]] == ["k4", "k3", "k2"]
    assert [key["name"] for key in rest["data"]][:2] == ["k1", "k0"]
    assert (first["has_more"], first["first_id"]) == (True, first["data"][0]["id"])


@pytest.mark.parametrize(
    ("query", "param"), [("limit=0", "limit"), ("limit=x", "limit"), ("limit=101", "limit"), ("after=key_x", "after")]
)
async def test_a_bad_query_names_its_parameter(query: str, param: str, app: RequestLifecycle) -> None:
    answer = await Client(app, key=BOSS).get(f"{PATH}?{query}")
    assert (answer.status, answer.error["param"]) in ((400, param), (404, param))


async def test_two_keys_may_have_one_name(app: RequestLifecycle) -> None:
    assert (await create(app))["id"] != (await create(app))["id"]


@pytest.mark.parametrize("id", ["nope", "' OR 1=1 --", "key_%27"])
async def test_an_unknown_key_is_a_404(id: str, app: RequestLifecycle) -> None:
    for method in ("GET", "DELETE"):
        answer = await Client(app, key=BOSS).request(method, f"{PATH}/{id}")
        assert (answer.status, answer.error["code"]) == (404, "key_not_found")


async def test_an_admin_key_that_another_gateway_revoked_opens_nothing_here(keys: KeyStore) -> None:
    one, other = create_app(parts(keys=keys)), create_app(parts(keys=keys))
    made = await create(one, admin=True)
    client = Client(other, key=made["key"])
    assert (await client.get(PATH)).status == 200
    await Client(one, key=BOSS).request("DELETE", f"{PATH}/{made['id']}")
    assert (await client.get(PATH)).status == 401


async def test_a_key_is_changed_in_what_is_named_and_at_once(app: RequestLifecycle) -> None:
    made = await create(app, limits={"max_tokens": 5}, tags=["a"], priority=1, expires_in_days=1)
    boss, path = Client(app, key=BOSS), f"{PATH}/{made['id']}"
    secret = made.pop("key")
    assert (await Client(app, key=secret).get("/v1/models")).json["data"]
    changed = (await boss.post(path, {"models": [], "budget": {"amount": 2}}, headers=JSON)).json
    assert changed == {
        **made,
        "models": [],
        "budget": {"amount": "2", "period": "month", "on_exhausted": "deny"},
    }
    assert (await Client(app, key=secret).get("/v1/models")).json["data"] == []
    bare = {"limits": None, "budget": None, "models": None, "priority": None, "tags": None, "expires_in_days": None}
    changed = (await boss.post(path, bare, headers=JSON)).json
    del bare["expires_in_days"]
    assert changed == {**made, **bare, "tags": [], "expires": None}


async def test_a_replaced_secret_is_refused_at_once_and_the_new_one_is_the_same_key(app: RequestLifecycle) -> None:
    made = await create(app, team="red")
    old = Client(app, key=made["key"])
    assert (await old.get("/v1/models")).status == 200
    rotated = (await Client(app, key=BOSS).post(f"{PATH}/{made['id']}/rotate")).json
    assert (rotated["id"], rotated["team"], rotated["hint"]) == (made["id"], "red", rotated["key"][-4:])
    assert (await old.get("/v1/models")).error["code"] == "invalid_api_key"
    assert (await Client(app, key=rotated["key"]).get("/v1/models")).status == 200
    assert rotated["key"] not in (await Client(app, key=BOSS).get(PATH)).body.decode()


async def test_a_revoked_key_can_not_be_changed(app: RequestLifecycle) -> None:
    made = await create(app)
    boss, path = Client(app, key=BOSS), f"{PATH}/{made['id']}"
    await boss.request("DELETE", path)
    for asked in (path, f"{path}/rotate"):
        answer = await boss.post(asked, {"name": "x"}, headers=JSON)
        assert (answer.status, answer.error["code"]) == (409, "key_revoked")


@pytest.mark.parametrize(
    "secret", ["' OR '1'='1", "sk-qd-boss' --", "'; DROP TABLE api_keys; --", "sk-qd-bos", "sk-qd-boss2", "%", "*"]
)
async def test_what_looks_like_sql_or_like_a_piece_of_a_key_opens_nothing(secret: str, app: RequestLifecycle) -> None:
    assert (await Client(app, key=BOSS).get(PATH)).status == 200  # it is cached now
    for path in (PATH, "/v1/models"):
        answer = await Client(app, key=secret).get(path)
        assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert (await Client(app, key=BOSS).get(PATH)).status == 200


async def test_keys_that_begin_alike_are_different_keys(app: RequestLifecycle, keys: KeyStore) -> None:
    shared = "sk-qd-" + "x" * 80
    for tail, is_admin in (("1", True), ("2", False)):
        await keys.create(secret=shared + tail, name=tail, is_admin=is_admin)
    assert (await Client(app, key=shared + "1").get(PATH)).status == 200
    assert (await Client(app, key=shared + "2").get(PATH)).status == 403
    assert (await Client(app, key=shared).get(PATH)).status == 401


async def test_a_key_that_the_file_names_is_made_and_ended_here_and_limited_there(managed: RequestLifecycle) -> None:
    made = await ask(managed, "POST", KEYS, {"name": "ci", "models": ["chat"]}, status=201)
    assert (made["managed_by"], made["limits"], made["tags"]) == ("config", {"requests_per_minute": 9}, ["file"])
    path = f"{KEYS}/{made['id']}"
    for body in ({"limits": None}, {"tags": ["x"]}, {"priority": 3}, {"budget": None}, {"name": "free"}):
        error = await ask(managed, "POST", path, body, status=409)
        assert (error["code"], error["param"]) == ("managed_by_config", next(iter(body)))
    assert (await ask(managed, "POST", path, {"models": None, "team": "blue", "name": "ci"}))["models"] is None
    await ask(managed, "POST", f"{path}/rotate")
    await ask(managed, "DELETE", path)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (KEYS, {"name": "x", "tags": ["a\x00"]}, "tags[0]"),
        (KEYS, {"name": "x", "budget": {}}, "budget.amount"),
        (f"{KEYS}/key_1", {"name": None}, "name"),
        (f"{KEYS}/key_1", {"admin": True}, "admin"),
    ],
    ids=str,
)
async def test_a_bad_body_names_its_parameter(path: str, body: Any, param: str, app: RequestLifecycle) -> None:
    assert await refused_body(app, path, body) == param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"name":"x","admin":false,"admin":true}', "admin"),
        (b' {"name": "x", "limits": {"max_tokens": 1, "max_t\\u006fkens": 2}} ', "max_tokens"),
    ],
)
async def test_a_member_that_is_there_twice_is_refused(body: bytes, param: str, app: RequestLifecycle) -> None:
    answer = await Client(app, key=BOSS).request("POST", PATH, body, headers=JSON)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "duplicate_parameter", param)


async def test_white_space_is_no_body(app: RequestLifecycle) -> None:
    assert (await Client(app, key=BOSS).request("POST", PATH, b" \n", headers=JSON)).status == 400


async def test_an_admin_of_the_platform_manages_the_keys_of_other_organisations(app: RequestLifecycle) -> None:
    listed = await ask(app, "GET", f"{PATH}?org=other")
    [leaked] = listed["data"]
    assert leaked["name"] == "stranger"
    path = f"{PATH}/{leaked['id']}"
    assert (await ask(app, "GET", path))["org"] == "other"
    assert (await ask(app, "POST", f"{path}?org=other", {"priority": 3}))["priority"] == 3
    assert (await ask(app, "GET", f"{path}?org=default", status=404))["code"] == "key_not_found"
    assert (await ask(app, "POST", f"{PATH}?org=other", {"name": "second"}, status=201))["org"] == "other"
    await ask(app, "DELETE", path)
    assert (await ask(app, "GET", PATH, key=STRANGER, status=401))["code"] == "invalid_api_key"


async def test_an_admin_of_another_organisation_manages_its_own_only(app: RequestLifecycle, keys: KeyStore) -> None:
    boss = await keys.find(ids.digest(BOSS))
    assert boss is not None
    for method, path in (("GET", f"{PATH}?org=default"), ("DELETE", f"{PATH}/{boss.id}?org=default")):
        error = await ask(app, method, path, key=STRANGER, status=403)
        assert (error["param"], error["code"]) == ("org", "platform_admin_required")
    await ask(app, "DELETE", f"{PATH}/{boss.id}", key=STRANGER, status=404)
    assert [row["name"] for row in (await ask(app, "GET", f"{PATH}?org=other", key=STRANGER))["data"]] == ["stranger"]
    assert (await ask(app, "GET", f"{PATH}?org=nobody", status=404))["code"] == "org_not_found"
