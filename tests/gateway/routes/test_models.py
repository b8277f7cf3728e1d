"""`/v1/models` in OpenAI's format, by key."""

from tests.gateway.fakes import NARROW, USER, Client, FakeEndpoints, FakePipeline, endpoint, parts

from quarterdeck.gateway.app import create_app
from quarterdeck.settings.loading import parse


async def test_models_aliases_and_adapters_are_listed() -> None:
    answer = await Client(create_app(parts())).get("/v1/models")
    assert answer.json["object"] == "list"
    assert [model["id"] for model in answer.json["data"]] == ["chat", "gpt-4o-mini", "pirate", "org/emb"]
    assert answer.json["data"][0] == {
        "id": "chat",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "quarterdeck",
        "root": "chat",
        "parent": None,
        "max_model_len": 4096,
        "state": "ready",
    }


async def test_an_adapter_that_was_loaded_since_is_listed_under_its_model() -> None:
    endpoints = FakeEndpoints(endpoint(adapters=frozenset({"late"})))
    answer = await Client(create_app(parts(endpoints=endpoints))).get("/v1/models/late")
    assert (answer.json["id"], answer.json["parent"], answer.json["state"]) == ("late", "chat", "ready")


async def test_a_model_whose_name_holds_a_slash_is_retrieved() -> None:
    answer = await Client(create_app(parts())).get("/v1/models/org/emb")
    assert (answer.status, answer.json["id"], answer.json["state"]) == (200, "org/emb", "starting")


async def test_an_unknown_model_is_a_404_with_param_and_code() -> None:
    answer = await Client(create_app(parts())).get("/v1/models/nope")
    assert (answer.status, answer.error["param"], answer.error["code"]) == (404, "model", "model_not_found")


async def test_a_key_sees_only_the_models_it_may_use() -> None:
    app = create_app(parts())
    listed = await Client(app, key=NARROW).get("/v1/models")
    assert [model["id"] for model in listed.json["data"]] == ["org/emb"]
    assert (await Client(app, key=NARROW).get("/v1/models/chat")).status == 404
    assert (await Client(app, key=USER).get("/v1/models/chat")).status == 200


async def test_a_model_that_nobody_answers_for_is_listed_as_unavailable() -> None:
    made = parts(FakePipeline(), endpoints=FakeEndpoints())
    answer = await Client(create_app(made)).get("/v1/models/chat")
    assert answer.json["state"] == "unavailable"


async def test_revisions_are_not_listed_and_their_name_is() -> None:
    text = """
models:
  - {name: chat@r1, engine: {source: ./one}}
  - {name: chat@r2, engine: {source: ./two}}
routes: [{name: chat, targets: [{model: chat@r1}, {model: chat@r2}]}]
"""
    app = create_app(parts(FakePipeline(parse(text)), endpoints=FakeEndpoints(endpoint("e", "chat@r1"))))
    (model,) = (await Client(app).get("/v1/models")).json["data"]
    assert (model["id"], model["root"], model["parent"], model["state"]) == ("chat", "chat", None, "ready")
    assert (await Client(app).get("/v1/models/chat@r2")).status == 404
