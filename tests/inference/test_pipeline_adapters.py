"""An adapter is its name and its content: what is replaced under an old name is another adapter."""

from pathlib import Path
from typing import Any

import pytest
from tests.inference.bench import Bench, refused
from tests.inference.engines import and_break
from tests.inference.making import CHAT, DONE, SAID, answer, as_json, change, usage
from tests.inference.reading import read
from tests.net.upstream import Upstream, answering, response, streamed

from quarterdeck.errors import BadRequestError
from quarterdeck.inference.call import Reply
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.redis import Redis

CONFIG = """
models:
  - {name: m, engine: {source: ./m, max_adapters: 1, adapters: [{name: pirate, source: ./pirate}]}}
cache: {default: {exact: true}}
"""
COLD = {**CHAT, "model": "pirate", "temperature": 0}
OLD, NEW = "pirate@01d", "pirate@4e3"


def loaded(engine_name: str) -> dict[str, Any]:
    return {"adapters": frozenset({"pirate"}), "engine_names": {"pirate": engine_name}}


def named(body: bytes, model: str) -> bytes:
    assert b'"id":' in body
    return body.replace(b'"id":', b'"model":"%b","id":' % model.encode(), 1)


@pytest.fixture
def bench(redis: Redis, tmp_path: Path, client: HttpClient) -> Bench:
    return Bench(redis, tmp_path, client, config=CONFIG)


async def ask(bench: Bench, asked: dict[str, Any] | None = None) -> Reply:
    reply = await bench.ask(asked or COLD)
    if reply.stream is not None:
        reply.body = await read(reply.stream)
    await bench.drain()
    return reply


def cache_of(reply: Reply) -> str:
    return dict(reply.headers)[b"x-cache"].decode()


async def test_the_engine_is_asked_by_content_and_the_caller_sees_the_public_name(bench: Bench) -> None:
    quoting = answer(f'{{"model":"{OLD}"}}')
    whole, stream = named(quoting, OLD), [named(each, OLD) for each in (*SAID, usage(7, 3))]
    async with Upstream(answering(response(whole), streamed(*stream, DONE))) as engine:
        bench.add(engine, **loaded(OLD))
        first = await ask(bench)
        second = await ask(bench, {**COLD, "stream": True})
        assert [seen.json["model"] for seen in engine.requests] == [OLD, OLD]
    assert first.body == named(quoting, "pirate")
    assert second.body == b"".join([named(each, "pirate") for each in SAID]) + DONE
    assert {record.model for record in await bench.records()} == {"pirate"}


async def test_an_error_shows_the_public_name(bench: Bench) -> None:
    refusal = as_json({"error": {"message": f"The model `{OLD}` takes no tools.", "code": 400}})
    async with Upstream(answering(response(refusal, status=400))) as engine:
        bench.add(engine, **loaded(OLD))
        error = await refused(BadRequestError, bench, COLD)
    assert error.message == "The model `pirate` takes no tools."


async def test_a_replaced_adapter_is_not_answered_from_the_cache(bench: Bench) -> None:
    async with Upstream(answering(*[response(answer(text)) for text in ("old", "new")])) as engine:
        (endpoint,) = bench.add(engine, **loaded(OLD))
        assert [cache_of(await ask(bench)) for _ in range(2)] == ["miss", "hit"]
        change(endpoint, **loaded(NEW))
        fresh = await ask(bench)
        assert (cache_of(fresh), fresh.body) == ("miss", answer("new"))
        change(endpoint, **loaded(OLD))
        assert (await ask(bench)).body == answer("old")
        assert len(engine.requests) == 2


async def test_while_replicas_differ_an_answer_is_stored_for_its_own_weights_only(bench: Bench) -> None:
    async with Upstream(answering()) as one, Upstream(answering(*[response(answer("new"))] * 2)) as other:
        bench.add(one, **loaded(OLD))
        bench.add(other, **loaded(NEW))
        bench.listed.endpoints[0].load.begin(1000)  # the other one is picked
        assert [cache_of(await ask(bench)) for _ in range(2)] == ["miss", "miss"]
        assert len(other.requests) == 2


async def test_an_answer_is_not_continued_by_other_weights(bench: Bench) -> None:
    lost, rest = and_break(*SAID[:2]), streamed(*SAID[1:], usage(7, 3), DONE)
    async with Upstream(answering(lost)) as one, Upstream(answering(rest)) as other:
        bench.add(one, **loaded(OLD))
        bench.add(other, **loaded(NEW))
        said = (await ask(bench, {**COLD, "stream": True})).body
        assert said.startswith(SAID[0] + SAID[1])
        assert b"engine_error" in said
        assert not said.endswith(DONE)
        assert other.requests == []


async def test_a_model_whose_files_were_replaced_is_not_answered_from_the_cache(bench: Bench) -> None:
    asked = {**COLD, "model": "m"}
    async with Upstream(answering(*[response(answer(text)) for text in ("old", "new")])) as engine:
        (endpoint,) = bench.add(engine, version="01d")
        assert [cache_of(await ask(bench, asked)) for _ in range(2)] == ["miss", "hit"]
        change(endpoint, version="4e3")
        assert (await ask(bench, asked)).body == answer("new")


@pytest.mark.parametrize("asked", [COLD, {**COLD, "model": "m"}], ids=["adapter", "model"])
async def test_cached_answers_outlive_an_outage_of_the_engine(bench: Bench, asked: dict[str, Any]) -> None:
    async with Upstream(answering(response(answer()))) as engine:
        (endpoint,) = bench.add(engine, version="01d", **loaded(OLD))
        await ask(bench, asked)
        change(endpoint, state="starting")
        assert cache_of(await ask(bench, asked)) == "hit"
