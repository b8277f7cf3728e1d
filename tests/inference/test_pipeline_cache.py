"""Requests that the cache answers, and what the others leave in it, through the whole pipeline."""

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.accounting.spending import a_scope, trust
from tests.inference.bench import CONFIG, Bench
from tests.inference.engines import Held
from tests.inference.making import CHAT, DONE, SAID, a_head, a_principal, answer, as_json, usage
from tests.inference.reading import read
from tests.net.upstream import Peer, Upstream, answering, response, streamed, until

from quarterdeck.errors import EngineError
from quarterdeck.inference.cache import entry, store
from quarterdeck.inference.call import Head, Operation, Reply
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.redis import Redis
from quarterdeck.settings.limits import Limits

CACHED = f"{CONFIG}\ncache: {{default: {{exact: true}}}}"
COLD = {**CHAT, "temperature": 0}
STREAMED = streamed(*SAID, usage(7, 3), DONE)
NOTHING = Decimal(0)
COST = Decimal(7 * 1 + 3 * 2) / 1_000_000


@pytest.fixture
def bench(redis: Redis, tmp_path: Path, client: HttpClient) -> Bench:
    return Bench(redis, tmp_path, client, config=CACHED)


def cache_of(reply: Reply) -> str | None:
    value = dict(reply.headers).get(b"x-cache")
    return value.decode() if value else None


async def ask(bench: Bench, asked: dict[str, Any] | None = None, **changes: Any) -> Reply:
    """Call the pipeline, and wait until the answer is in Redis."""
    reply = await bench.ask(asked or COLD, **changes)
    if reply.stream is not None:
        reply.body = await read(reply.stream)
    await bench.drain()
    return reply


async def test_without_a_policy_nothing_is_said_of_caching(redis: Redis, tmp_path: Path, client: HttpClient) -> None:
    bench = Bench(redis, tmp_path, client)
    async with Upstream(answering(response(answer()), response(answer()))) as engine:
        bench.add(engine)
        assert [cache_of(await ask(bench)) for _ in range(2)] == [None, None]
        assert [record.cache for record in await bench.records()] == ["off", "off"]


async def test_the_second_of_two_equal_requests_costs_nothing(bench: Bench) -> None:
    async with Upstream(answering(response(answer()))) as engine:
        bench.add(engine)
        first, second = await ask(bench), await ask(bench)
        assert (cache_of(first), cache_of(second)) == ("miss", "hit")
        assert (second.status, second.body, second.stream) == (200, answer(), None)
        assert dict(second.headers)[b"content-type"] == b"application/json"
        assert dict(second.headers)[b"age"] == b"0"
        assert len(engine.requests) == 1
        miss, hit = await bench.records()
    assert (miss.cache, miss.cost, miss.saved) == ("miss", COST, NOTHING)
    assert (hit.cache, hit.cost, hit.saved, hit.status, hit.http_status) == ("hit", NOTHING, COST, "ok", 200)
    assert (hit.input_tokens, hit.output_tokens, hit.endpoint, hit.attempts) == (0, 0, "", ())
    assert hit.cache_age is not None and hit.cache_age >= 0
    assert hit.finish_reason == "stop"


async def test_a_stream_is_replayed_as_it_was(bench: Bench) -> None:
    async with Upstream(answering(STREAMED)) as engine:
        bench.add(engine)
        asked = {**COLD, "stream": True}
        first, second = await ask(bench, asked), await ask(bench, asked)
        assert first.body == second.body == b"".join((*SAID, DONE))
        assert dict(second.headers)[b"content-type"].startswith(b"text/event-stream")
        told = await ask(bench, {**asked, "stream_options": {"include_usage": True}})
        assert (cache_of(told), told.body) == ("hit", b"".join((*SAID, usage(7, 3), DONE)))
        assert len(engine.requests) == 1
        assert [record.stream for record in await bench.records()] == [True] * 3


async def test_a_stream_and_a_body_are_two_answers(bench: Bench) -> None:
    async with Upstream(answering(STREAMED, response(answer()))) as engine:
        bench.add(engine)
        assert cache_of(await ask(bench, {**COLD, "stream": True})) == "miss"
        assert cache_of(await ask(bench)) == "miss"


async def test_embeddings_are_kept_too(bench: Bench) -> None:
    body = as_json({"data": [{"embedding": [1, 2]}], "usage": {"prompt_tokens": 1}})
    async with Upstream(answering(response(body))) as engine:
        bench.add(engine)
        asked = {"model": "m", "input": ["a"]}
        replies = [await ask(bench, asked, operation=Operation.EMBEDDINGS) for _ in range(2)]
        assert [(cache_of(reply), reply.body) for reply in replies] == [("miss", body), ("hit", body)]


async def test_a_team_shares_and_another_does_not(bench: Bench) -> None:
    async with Upstream(answering(*[response(answer())] * 2)) as engine:
        bench.add(engine)
        who = [a_principal(), a_principal(key="key_2"), a_principal(key="key_3", team="other")]
        found = [cache_of(await ask(bench, head=a_head(principal=principal))) for principal in who]
        assert found == ["miss", "hit", "miss"]


async def test_what_is_not_repeatable_goes_by(bench: Bench) -> None:
    async with Upstream(answering(*[response(answer())] * 2)) as engine:
        bench.add(engine)
        assert [cache_of(await ask(bench, CHAT)) for _ in range(2)] == ["bypass", "bypass"]
        assert [record.cache for record in await bench.records()] == ["bypass", "bypass"]


@pytest.mark.parametrize(("header", "then"), [(b"no-cache", "anew"), (b"no-store", "old"), (b"max-age=0", "anew")])
async def test_a_caller_may_forbid_it(bench: Bench, header: bytes, then: str) -> None:
    async with Upstream(answering(response(answer("old")), response(answer("anew")))) as engine:
        bench.add(engine)
        await ask(bench)
        forbidden = await ask(bench, cache_control=header)
        assert (cache_of(forbidden), forbidden.body) == ("bypass", answer("anew"))
        assert (await ask(bench)).body == answer(then)


async def test_an_answer_that_is_too_old_for_the_caller_is_made_anew(bench: Bench, redis: Redis) -> None:
    async with Upstream(answering(response(answer("old")), response(answer("anew")))) as engine:
        bench.add(engine)
        first = await ask(bench)
        key = dict(first.headers)[b"x-cache-key"].decode()
        await make_older(redis, key, 100.0)
        assert (await ask(bench, cache_control=b"max-age=1000")).body == answer("old")
        found = await ask(bench, cache_control=b"max-age=60")
        assert (cache_of(found), found.body) == ("miss", answer("anew"))
        assert len(await bench.records()) == 3


async def make_older(redis: Redis, key: str, seconds: float) -> None:
    found = entry.decode(await store.fetch(redis, "default", key) or b"")
    assert found is not None
    older = msgspec.structs.replace(found, made=found.made - seconds)
    await redis.call("SET", store.entry_key("default", key), entry.encode(older))


async def test_errors_are_not_kept(bench: Bench) -> None:
    boom = response(b'{"error":{"message":"boom"}}', status=500)
    async with Upstream(answering(*[boom] * 6)) as engine:
        bench.add(engine)
        for _ in range(2):
            with pytest.raises(EngineError):
                await bench.ask(COLD)
        assert len(engine.requests) >= 2
        assert (await store.size(bench.redis, "default")).entries == 0


async def test_what_was_purged_is_made_anew(bench: Bench) -> None:
    async with Upstream(answering(*[response(answer())] * 2)) as engine:
        bench.add(engine)
        await ask(bench)
        assert await store.purge(bench.redis, "default") == 1
        assert cache_of(await ask(bench)) == "miss"


# single flight


def is_followed(bench: Bench) -> bool:
    """Whether a request waits for an equal one."""
    return any(flight.future is not None for flight in bench.cache.flights.values())


async def silent(peer: Peer) -> None:
    await peer.until_gone()


async def test_equal_requests_under_way_ask_the_engine_once(bench: Bench) -> None:
    held = Held(response(answer()))
    async with Upstream(held.script) as engine:
        bench.add(engine)
        principal = a_principal()  # one key: the five are admitted in one turn of the loop
        asking = asyncio.gather(*[bench.ask(COLD, principal=principal) for _ in range(5)])
        await until(lambda: is_followed(bench))
        held.gates[0].set()
        replies = await asking
        assert [reply.body for reply in replies] == [answer()] * 5
        assert sorted(str(cache_of(reply)) for reply in replies) == ["hit"] * 4 + ["miss"]
        assert len(engine.requests) == 1
        records = await bench.records()
    assert sum(record.cost for record in records) == COST
    assert sum(record.saved for record in records) == 4 * COST


async def test_a_leader_that_hangs_up_leaves_the_others_their_own_way(bench: Bench) -> None:
    async with Upstream(answering(silent, response(answer()))) as engine:
        bench.add(engine)
        leader = asyncio.create_task(bench.ask(COLD))
        await engine.arrived.wait()
        follower = asyncio.create_task(bench.ask(COLD))
        await until(lambda: is_followed(bench))
        leader.cancel()
        reply = await follower
        assert (cache_of(reply), reply.body) == ("miss", answer())
        with pytest.raises(asyncio.CancelledError):
            await leader
        assert [record.status for record in await bench.records()] == ["cancelled", "ok"]


async def test_a_follower_that_hangs_up_while_it_waits_is_settled(bench: Bench) -> None:
    async with Upstream(answering(silent)) as engine:
        bench.add(engine)
        leader = asyncio.create_task(bench.ask(COLD))
        await engine.arrived.wait()
        follower = asyncio.create_task(bench.ask(COLD))
        await until(lambda: is_followed(bench))
        follower.cancel()
        with pytest.raises(asyncio.CancelledError):
            await follower
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        assert [record.status for record in await bench.records()] == ["cancelled", "cancelled"]


# limits, Redis, other words


async def test_a_hit_takes_a_request_but_no_tokens(bench: Bench) -> None:
    principal = a_principal(limits=Limits(requests_per_minute=10, tokens_per_minute=1000))
    async with Upstream(answering(response(answer()))) as engine:
        bench.add(engine)
        await ask(bench, head=a_head(principal=principal))
        left = [dict((await ask(bench, head=a_head(principal=principal))).headers) for _ in range(2)]
        assert [headers[b"x-ratelimit-remaining-requests"] for headers in left] == [b"8", b"7"]
        tokens = [int(headers[b"x-ratelimit-remaining-tokens"]) for headers in left]
        assert tokens[0] >= 1000 - 7 - 3 and tokens[1] >= tokens[0]


async def test_one_that_waited_gives_its_tokens_and_its_place_back(bench: Bench) -> None:
    principal = a_principal(limits=Limits(tokens_per_minute=10_000, concurrent_requests=3))

    def head() -> Head:
        return a_head(principal=principal)

    held = Held(response(answer()))
    async with Upstream(held.script) as engine:
        bench.add(engine)
        asking = asyncio.gather(*[bench.ask(COLD, head=head()) for _ in range(3)])
        await until(lambda: is_followed(bench))
        held.gates[0].set()
        await asking
        await bench.drain()
        await asyncio.gather(*[bench.ask(COLD, head=head()) for _ in range(3)])
        await bench.drain()
        reply = await ask(bench, head=head())
        assert int(dict(reply.headers)[b"x-ratelimit-remaining-tokens"]) >= 10_000 - 7 - 3
        assert [record.cache for record in await bench.records()].count("hit") == 6


async def test_a_redis_that_is_away_makes_every_request_a_miss(tmp_path: Path, client: HttpClient) -> None:
    redis = Redis(f"unix://{tmp_path}/nobody")
    bench = Bench(redis, tmp_path, client, config=CACHED)
    async with Upstream(answering(*[response(answer())] * 2)) as engine:
        bench.add(engine)
        assert [cache_of(await ask(bench)) for _ in range(2)] == ["miss", "miss"]
    await redis.close()


async def test_the_same_in_other_words_is_answered_from_the_cache(
    redis: Redis, tmp_path: Path, client: HttpClient
) -> None:
    text = CONFIG.replace("models:", 'models:\n  - {name: e, endpoints: [{url: "http://unused"}]}')
    bench = Bench(
        redis, tmp_path, client, config=f"{text}\ncache: {{policies: {{m: {{semantic: {{embedding_model: e}}}}}}}}"
    )

    def saying(words: str) -> dict[str, Any]:
        return {**COLD, "messages": [{"role": "user", "content": words}]}

    vectors = as_json({"data": [{"index": 0, "embedding": [1, 0]}, {"index": 1, "embedding": [1, 0.1]}]})
    async with (
        Upstream(answering(*[response(answer())] * 2)) as engine,
        Upstream(answering(response(vectors))) as other,
    ):
        bench.add(engine)
        bench.add(other, model="e")
        first = await ask(bench, saying("How do I reset my password?"))
        again = await ask(bench, saying("Please tell me how to reset my password."))
        strange = await ask(bench, saying("How do I reset my router?"))
        assert [cache_of(reply) for reply in (first, again, strange)] == ["miss", "hit", "miss"]
        assert again.body == answer()
        assert dict(again.headers)[b"x-cache-key"] == dict(first.headers)[b"x-cache-key"]
        assert len(other.requests) == 1
    assert [(record.cache, record.saved) for record in await bench.records()][1] == ("hit", COST)


@pytest.mark.parametrize("reason", ["length", "stop"])
async def test_an_answer_that_a_budget_has_cut_is_not_kept_for_others(bench: Bench, reason: str) -> None:
    """The poor key's answer is shortened to what it has money for."""
    poor = a_principal(key="poor", scopes=(a_scope("key:poor", 2000),))
    rich = a_principal(key="rich", scopes=(a_scope("key:rich", 10**9),))
    await trust(bench.redis, *poor.scopes, *rich.scopes)
    said = answer().replace(b'"finish_reason":"stop"', f'"finish_reason":"{reason}"'.encode())
    async with Upstream(answering(response(said), response(answer("All of it")))) as engine:
        bench.add(engine)[0].context = 40_000
        assert cache_of(await ask(bench, principal=poor)) == "miss"
        assert engine.requests[0].json["max_completion_tokens"] < 1000
        second = await ask(bench, principal=rich)
        assert (cache_of(second), len(engine.requests)) == (("miss", 2) if reason == "length" else ("hit", 1))


async def test_a_completion_of_the_usual_length_is_kept_under_a_budget(bench: Bench) -> None:
    principal = a_principal(scopes=(a_scope("key:key_1", 10**9),))
    await trust(bench.redis, *principal.scopes)
    said = as_json({"choices": [{"index": 0, "text": "a", "finish_reason": "length"}], "usage": {"prompt_tokens": 1}})
    asked = {"model": "m", "prompt": "Say it.", "temperature": 0}
    async with Upstream(answering(response(said))) as engine:
        bench.add(engine)
        for _ in range(2):
            await ask(bench, asked, head=a_head(Operation.COMPLETIONS, principal=principal))
        assert len(engine.requests) == 1
