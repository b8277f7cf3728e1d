"""What budgets hold for requests on their way through the pipeline, and what they pay for."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.accounting.spending import ORG, a_scope, money, spent_and_held, trust
from tests.inference.bench import Bench, refused
from tests.inference.engines import and_wait
from tests.inference.making import CHAT, DONE, SAID, STREAM, a_head, a_principal, answer, as_json, by, usage
from tests.inference.reading import read
from tests.net.upstream import Peer, Upstream, answering, response, streamed

from quarterdeck.accounting.principal import Principal
from quarterdeck.accounting.redis_keys import cold_key
from quarterdeck.accounting.scopes import Scope
from quarterdeck.errors import (
    BadRequestError,
    EngineError,
    InsufficientQuotaError,
    RateLimitError,
    RequestTooLargeError,
    ServiceUnavailableError,
)
from quarterdeck.inference.call import Operation
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.redis import Redis
from quarterdeck.settings.limits import Limits

KEY = "key:key_1"
DOWN = response(b'{"error":{"message":"down"}}', status=503)
FREE = """
models:
  - {name: free, endpoints: [{url: "http://unused"}]}
  - {name: n, endpoints: [{url: "http://unused"}], price: {input: "10", output: "20"}}
  - {name: cheap, endpoints: [{url: "http://unused"}], price: {input: "0.01", output: "0.01"}}
routes:
  - {name: r, targets: [{model: free}], fallbacks: [{model: n}]}
  - {name: s, targets: [{model: free}], fallbacks: [{model: n}, {model: cheap}]}
"""

HOSTED = """
models:
  - name: m
    endpoints: [{url: "http://unused", kind: openai}]
    price: {input: "1", cached_input: "0.5", output: "2"}
"""


def who(amount: int, *, limits: Limits | None = None, warns: bool = False) -> Principal:
    return a_principal(limits=limits or Limits(), scopes=(a_scope(KEY, amount, warns=warns),))


@pytest.fixture
def routed(redis: Redis, tmp_path: Path, client: HttpClient) -> Bench:
    return Bench(redis, tmp_path, client, config=FREE)


async def test_a_free_model_is_answered_without_money_and_its_paid_fallback_is_not(routed: Bench) -> None:
    principal = who(1)
    await trust(routed.redis, *principal.scopes)
    async with (
        Upstream(answering(response(answer()), *[DOWN] * 9)) as free,
        Upstream(answering(*[response(answer())] * 9)) as n,
    ):
        routed.add(free, model="free")
        routed.add(n, model="n")
        assert (await routed.ask(by("r"), principal=principal)).status == 200
        await refused(InsufficientQuotaError, routed, by("r"), principal=principal)
        assert not n.requests
        await routed.drain()
        assert await spent_and_held(routed.redis, KEY) == [(0, 0)]
        # A budget that has the money pays for the fallback.
        rich = who(10**6)
        await trust(routed.redis, *rich.scopes)
        assert (await routed.ask(by("r"), principal=rich)).status == 200
        await routed.drain()
        assert await spent_and_held(routed.redis, KEY) == [(130, 0)]


async def test_a_fallback_that_is_too_dear_is_skipped_for_one_that_is_not(routed: Bench) -> None:
    principal = who(1000)
    await trust(routed.redis, *principal.scopes)
    async with (
        Upstream(answering(*[DOWN] * 3)) as free,
        Upstream(answering(response(answer()))) as n,
        Upstream(answering(response(answer()))) as cheap,
    ):
        for engine, model in ((free, "free"), (n, "n"), (cheap, "cheap")):
            routed.add(engine, model=model)
        assert (await routed.ask(by("s"), principal=principal)).status == 200
        assert not n.requests
        assert cheap.requests


async def test_a_fallback_of_a_model_without_an_endpoint_is_paid_for_as_well(routed: Bench) -> None:
    principal = who(1)
    await trust(routed.redis, *principal.scopes)
    async with Upstream(answering(response(answer()))) as n:
        routed.add(n, model="n")
        await refused(InsufficientQuotaError, routed, by("r"), principal=principal)
        assert not n.requests


async def test_a_budget_that_only_warns_pays_for_the_fallback(routed: Bench) -> None:
    principal = who(1, warns=True)
    await trust(routed.redis, *principal.scopes)
    async with Upstream(answering(DOWN)) as free, Upstream(answering(response(answer()))) as n:
        routed.add(free, model="free")
        routed.add(n, model="n")
        assert (await routed.ask(by("r"), principal=principal)).status == 200
        await routed.drain()
        assert await spent_and_held(routed.redis, KEY) == [(130, 0)]


@pytest.mark.parametrize(
    "asked",
    [
        {"prompt": ["Say"] * 500, "max_tokens": 1000},
        {"prompt": [[7, 8]] * 500, "max_tokens": 1000},
        {"prompt": "Say", "max_tokens": 1000, "best_of": 500},
        {"prompt": "Say", "max_tokens": 1000, "n": 500},
    ],
)
async def test_every_prompt_and_candidate_is_held(bench: Bench, asked: dict[str, Any]) -> None:
    principal = who(20_000)
    await trust(bench.redis, *principal.scopes)
    async with Upstream(answering(response(answer()))) as engine:
        bench.add(engine)
        head = a_head(Operation.COMPLETIONS, principal=principal)
        await refused(InsufficientQuotaError, bench, {"model": "m", **asked}, head=head)
        assert not engine.requests


async def test_token_ids_count_in_limits(bench: Bench) -> None:
    limits = Limits(tokens_per_minute=1000)
    principal = a_principal(limits=limits, scopes=(Scope(KEY, limits),))
    ids = {"model": "m", "prompt": [7] * 900, "max_tokens": 1}
    async with Upstream(answering(and_wait())) as engine:
        bench.add(engine)
        first = asyncio.create_task(bench.ask(ids, a_head(Operation.COMPLETIONS, principal=principal)))
        await engine.arrived.wait()
        await refused(RateLimitError, bench, ids, head=a_head(Operation.COMPLETIONS, principal=principal))
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    await bench.drain()


async def test_a_keys_own_limit_is_what_is_held(bench: Bench) -> None:
    principal = who(1000, limits=Limits(max_tokens=5))
    await trust(bench.redis, *principal.scopes)
    async with Upstream(answering(response(answer()))) as engine:
        bench.add(engine)
        assert (await bench.ask(principal=principal)).status == 200
        assert engine.requests[0].json["max_completion_tokens"] == 5


async def test_a_picture_holds_little_and_costs_little_when_its_client_leaves(bench: Bench) -> None:
    principal = who(500_000)
    await trust(bench.redis, *principal.scopes)
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBO" * 350_000}},
    ]
    asked = {"model": "m", "messages": [{"role": "user", "content": parts}], "max_tokens": 10, "stream": True}
    async with Upstream(answering(and_wait(*SAID[:1]))) as engine:
        bench.add(engine, kind="openai")
        reply = await bench.ask(asked, principal=principal)
        assert 2048 < (await money(bench.redis, KEY)).held < 5000
        assert reply.stream is not None
        await reply.stream.aclose()
        record = await bench.record()
        assert (record.status, record.usage_source) == ("cancelled", "estimated")
        assert 2048 < record.input_tokens < 2500


async def test_a_body_is_bounded_without_its_pictures(bench: Bench) -> None:
    def asked(text: str, url: str) -> dict[str, Any]:
        parts = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}]
        return {"model": "m", "messages": [{"role": "user", "content": parts}]}

    picture = "data:image/png;base64," + "iVBO" * 1_300_000
    async with Upstream(answering(response(answer()))) as engine:
        bench.add(engine)
        assert (await bench.ask(asked("What is this?", picture))).status == 200
        assert len(engine.requests[0].body) > 5_000_000
        await refused(RequestTooLargeError, bench, asked("x" * 5_000_000, picture))
        await refused(RequestTooLargeError, bench, asked(picture, "data:,"))
        await refused(RequestTooLargeError, bench, CHAT | {"metadata": {"a": picture}})
        await bench.drain()


async def test_an_answer_without_a_limit_is_sent_what_is_held_for_it(
    redis: Redis, tmp_path: Path, client: HttpClient
) -> None:
    bench = Bench(redis, tmp_path, client, config=HOSTED)
    rich, poor = who(10**6), who(1500)
    async with Upstream(answering(*[response(answer())] * 9)) as engine:
        bench.add(engine, kind="openai")
        for principal, least, most in ((rich, 4096, 4096), (poor, 600, 740)):
            await trust(bench.redis, *principal.scopes)
            await bench.ask(principal=principal)
            asked = engine.requests[-1].json
            sent = asked.get("max_completion_tokens") or asked.get("max_tokens")
            assert isinstance(sent, int)
            assert least <= sent <= most
        unlimited = who(10**6, warns=True)
        await bench.ask(principal=unlimited)
        assert "max_completion_tokens" not in engine.requests[-1].json
        await bench.drain()


async def test_vllm_of_unknown_context_is_sent_no_limit_that_it_might_refuse(bench: Bench) -> None:
    principal = who(10**6)
    await trust(bench.redis, *principal.scopes)
    async with Upstream(answering(response(answer()))) as engine:
        bench.add(engine)
        await bench.ask(principal=principal)
        assert "max_completion_tokens" not in engine.requests[0].json
        await bench.drain()


async def test_a_prompt_is_counted_where_the_upper_bound_is_too_much(bench: Bench) -> None:
    asked = {"model": "m", "messages": [{"role": "user", "content": "lazy dogs " * 400}], "max_tokens": 10}
    principal = who(1500)
    await trust(bench.redis, *principal.scopes)

    async def engine_says(peer: Peer) -> None:
        while True:
            seen = await peer.request()
            counted = {"count": 820, "tokens": []}
            await peer.say(response(as_json(counted) if seen.path == "/tokenize" else answer()))

    async with Upstream(engine_says) as engine:
        bench.add(engine)
        assert (await bench.ask(asked, principal=principal)).status == 200
        assert [seen.path for seen in engine.requests] == ["/tokenize", "/v1/chat/completions"]
        # A budget that has too little for any count of the prompt is refused without one.
        await trust(bench.redis, *who(30).scopes)
        await refused(InsufficientQuotaError, bench, asked, principal=who(30))
        assert len(engine.requests) == 2
        await bench.drain()


async def test_a_stream_that_is_left_has_the_price_of_its_cached_prompt(bench: Bench) -> None:
    """The price of `m`: 1 for the prompt, 0.5 where it is cached, 2 for the answer."""
    counted = response(as_json({"count": 100, "tokens": []}))
    whole = usage(100, 50, prompt_tokens_details={"cached_tokens": 96})
    async with Upstream(
        answering(streamed(*SAID, whole, DONE), and_wait(SAID[0]), counted, and_wait(SAID[0]), counted)
    ) as engine:
        bench.add(engine)
        await bench.stream()
        other = {"messages": [{"role": "user", "content": "another prompt"}]}
        for asked in ({}, other):
            reply = await bench.ask({**STREAM, **asked})
            assert reply.stream is not None
            await reply.stream.aclose()
            await bench.drain()
        read, left, unknown = await bench.records()
        assert (left.status, left.input_tokens, left.cached_tokens) == ("cancelled", 100, 96)
        assert left.cost <= read.cost
        assert unknown.cached_tokens == 0


async def test_a_request_waits_until_a_new_budget_is_counted(bench: Bench) -> None:
    principal = who(10**6)
    async with Upstream(answering(response(answer()))) as engine:
        bench.add(engine)
        asking = asyncio.create_task(bench.ask(principal=principal))
        while not await bench.redis.call("SCARD", cold_key(ORG)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await trust(bench.redis, *principal.scopes)  # as the worker does
        assert (await asking).status == 200
        await bench.drain()


async def test_a_request_that_leaves_while_it_waits_for_a_budget_holds_nothing(bench: Bench) -> None:
    principal = who(10**6)
    asking = asyncio.create_task(bench.ask(principal=principal))
    await asyncio.sleep(0.05)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await bench.drain()
    assert await bench.reservations() == 0
    assert not bench.seen


async def test_a_large_stream_of_a_small_key_leaves_its_teams_tokens(bench: Bench) -> None:
    small, team = Limits(tokens_per_minute=1000), Scope("team:default", Limits(tokens_per_minute=20_000))
    greedy = a_principal(limits=small, scopes=(Scope(KEY, small), team))
    mate = a_principal(key="key_2", scopes=(team,))
    async with Upstream(answering(and_wait(SAID[0]), and_wait(SAID[0]))) as engine:
        bench.add(engine)
        reply = await bench.ask({**STREAM, "max_tokens": 2**31 - 1}, principal=greedy)
        assert reply.stream is not None
        other = await bench.ask({**STREAM, "max_tokens": 100}, principal=mate)
        assert other.stream is not None
        error = await refused(RateLimitError, bench, STREAM, principal=greedy)
        assert int(error.retry_after or 0) <= 60
        await reply.stream.aclose()
        await other.stream.aclose()
    await bench.drain()


async def test_an_overdrawn_bucket_says_to_come_back_within_a_minute(bench: Bench) -> None:
    limits = Limits(tokens_per_minute=10)
    principal = a_principal(limits=limits, scopes=(Scope(KEY, limits),))
    said = answer(usage={"prompt_tokens": 7, "completion_tokens": 100_000, "total_tokens": 100_007})
    async with Upstream(answering(response(said))) as engine:
        bench.add(engine)
        await bench.ask(principal=principal)
        await bench.drain()
        error = await refused(RateLimitError, bench, principal=principal)
        assert error.retry_after == 60


async def test_without_redis_no_paid_fallback_is_called_for_a_budget_that_denies(
    own_redis_server: Any, tmp_path: Path, client: HttpClient
) -> None:
    own_redis_server.stop()
    redis = Redis(own_redis_server.url())
    bench = Bench(redis, tmp_path, client, config=FREE)
    async with Upstream(answering(response(answer()), DOWN)) as free, Upstream(answering(response(answer()))) as n:
        bench.add(free, model="free")
        bench.add(n, model="n")
        assert (await bench.ask(by("r"), principal=who(10**6))).status == 200
        await refused(ServiceUnavailableError, bench, by("r"), principal=who(10**6))
        assert not n.requests
    await bench.drain()
    await redis.close()


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream", "text/html"])
async def test_an_answer_of_another_content_type_is_billed_by_its_content(bench: Bench, content_type: str) -> None:
    principal = who(10**6)
    await trust(bench.redis, *principal.scopes)
    async with Upstream(answering(response(answer(), content_type=content_type))) as engine:
        bench.add(engine, kind="openai")
        reply = await bench.ask(principal=principal)
        assert json.loads(reply.body)["usage"]["completion_tokens"] == 3
        record = await bench.record()
        assert (record.input_tokens, record.output_tokens, record.usage_source) == (7, 3, "engine")
        assert await spent_and_held(bench.redis, KEY) == [(13, 0)]


@pytest.mark.parametrize("asked", [CHAT, STREAM])
async def test_a_page_instead_of_an_answer_is_an_engines_error_and_costs_nothing(
    bench: Bench, asked: dict[str, Any]
) -> None:
    principal = who(10**6)
    await trust(bench.redis, *principal.scopes)
    page = response(b"<!doctype html><title>Log in</title>", content_type="text/html")
    async with Upstream(answering(page, page)) as engine:
        bench.add(engine, kind="openai")
        await refused(EngineError, bench, asked, principal=principal)
        record = await bench.record()
        assert (record.status, record.http_status, record.cost) == ("error", 502, 0)
        assert await spent_and_held(bench.redis, KEY) == [(0, 0)]


async def test_a_stream_of_another_content_type_is_billed_by_its_content(bench: Bench) -> None:
    async with Upstream(
        answering(streamed(*SAID, usage(), DONE).replace(b"text/event-stream", b"text/plain"))
    ) as engine:
        bench.add(engine, kind="openai")
        assert (await bench.stream()).endswith(DONE)
        record = await bench.record()
        assert (record.input_tokens, record.output_tokens) == (7, 3)


MIXED = """
models:
  - {name: m, endpoints: [{url: "http://unused"}], price: {input: "1", output: "2"}}
  - {name: hosted, endpoints: [{url: "http://unused", kind: openai}], price: {input: "1", output: "2"}}
routes:
  - {name: r, targets: [{model: m}], fallbacks: [{model: hosted}]}
"""


async def test_an_answer_without_a_limit_is_held_up_to_the_context_that_the_engine_states(
    redis: Redis, tmp_path: Path, client: HttpClient
) -> None:
    bench = Bench(redis, tmp_path, client, config=MIXED)
    long = response(answer(usage={"prompt_tokens": 10, "completion_tokens": 30_000, "total_tokens": 30_010}))
    async with Upstream(answering(long)) as engine:
        bench.add(engine)[0].context = 40_000
        small = who(50_000)
        await trust(redis, *small.scopes)
        assert (await bench.ask(principal=small)).status == 200
        # What is left pays for fewer tokens, so the engine is sent that limit.
        assert engine.requests[0].json["max_completion_tokens"] < 25_000


async def test_a_hosted_fallback_of_an_engine_is_sent_a_limit_and_the_engine_is_not(
    redis: Redis, tmp_path: Path, client: HttpClient
) -> None:
    bench = Bench(redis, tmp_path, client, config=MIXED)
    rich = who(10**7)
    await trust(redis, *rich.scopes)
    async with Upstream(answering(DOWN)) as engine, Upstream(answering(response(answer()))) as hosted:
        bench.add(engine)[0].context = 40_000
        bench.add(hosted, model="hosted", kind="openai")
        assert (await bench.ask(by("r"), principal=rich)).status == 200
        assert not {"max_tokens", "max_completion_tokens"} & engine.requests[0].json.keys()
        assert hosted.requests[0].json["max_tokens"] == 4096


async def test_a_prompt_counted_by_one_tokenizer_is_held_anew_for_a_fallback_with_another(
    redis: Redis, tmp_path: Path, client: HttpClient
) -> None:
    """A tokenizer without Chinese makes several times the tokens of one with it."""
    bench = Bench(redis, tmp_path, client, config=MIXED)
    asked = {"model": "r", "max_tokens": 1, "messages": [{"role": "user", "content": "中" * 1000}]}
    poor = who(1500)
    await trust(redis, *poor.scopes)
    counted = response(as_json({"count": 700, "tokens": [], "max_model_len": 40_000}))
    async with Upstream(answering(counted, DOWN)) as engine, Upstream(answering(response(answer()))) as hosted:
        bench.add(engine)
        bench.add(hosted, model="hosted", kind="openai")
        await refused(InsufficientQuotaError, bench, asked, principal=poor)
        assert len(engine.requests) == 2  # counted, and called
        assert not hosted.requests
        await bench.drain()
        assert await spent_and_held(redis, KEY) == [(0, 0)]


@pytest.mark.parametrize(
    ("extra", "listed"),
    [
        ({"return_token_ids": True}, {"token_ids": [7, 8]}),
        ({"logprobs": True}, {"logprobs": {"content": [{"token": "a"}, {"token": "b"}]}}),
    ],
)
async def test_tokens_are_billed_whose_text_a_long_stop_string_holds_back(
    bench: Bench, extra: dict[str, Any], listed: dict[str, Any]
) -> None:
    principal = who(10**6)
    await trust(bench.redis, *principal.scopes)
    silent = [b"data: " + as_json({"choices": [{"index": 0, "delta": {"content": ""}, **listed}]}) + b"\n\n"] * 5
    count = response(as_json({"count": 3, "tokens": []}))
    async with Upstream(answering(streamed(*silent), count)) as engine:
        bench.add(engine)
        await bench.stream({"stop": ["x" * 10_000], **extra}, principal=principal)
        record = await bench.record()
        assert record.output_tokens == 10


async def test_an_echoed_prompt_is_billed_once(bench: Bench) -> None:
    chunk = b"data: " + as_json({"choices": [{"index": 0, "text": "Say it. Yes"}]}) + b"\n\n"
    counts = [response(as_json({"count": count, "tokens": []})) for count in (3, 4)]
    async with Upstream(answering(streamed(chunk), *counts)) as engine:
        bench.add(engine)
        reply = await bench.ask(
            {"model": "m", "prompt": "Say it.", "stream": True, "echo": True}, operation=Operation.COMPLETIONS
        )
        assert reply.stream is not None
        await read(reply.stream)
        await reply.stream.aclose()
        record = await bench.record()
        assert (record.input_tokens, record.output_tokens) == (3, 1)


@pytest.mark.parametrize("limit", [{"max_tokens": 0}, {"max_completion_tokens": 0}])
async def test_a_chat_with_a_limit_of_0_is_refused(bench: Bench, limit: dict[str, int]) -> None:
    """Some servers take it for no limit, past that of the key."""
    error = await refused(BadRequestError, bench, CHAT | limit, principal=who(10**6, limits=Limits(max_tokens=5)))
    assert error.code == "integer_below_min_value"


@pytest.mark.parametrize("early", [{"completion_tokens": 0}, {"completion_tokens": 1}])
async def test_a_usage_that_came_before_the_last_tokens_is_not_what_a_left_stream_costs(
    bench: Bench, early: dict[str, int]
) -> None:
    principal = who(10**6)
    await trust(bench.redis, *principal.scopes)
    first = {"choices": [{"index": 0, "delta": {"content": "a"}}], "usage": {"prompt_tokens": 5, **early}}
    rest = [b"data: " + as_json({"choices": [{"index": 0, "delta": {"content": "b"}}]}) + b"\n\n"] * 20
    counts = [response(as_json({"count": count, "tokens": []})) for count in (5, 21)]
    async with Upstream(answering(streamed(b"data: " + as_json(first) + b"\n\n", *rest), *counts)) as engine:
        bench.add(engine)
        await bench.stream(principal=principal)
        record = await bench.record()
        assert (record.input_tokens, record.output_tokens, record.usage_source) == (5, 21, "counted")


async def test_a_usage_with_each_event_is_what_a_left_stream_costs(bench: Bench) -> None:
    events = [
        b"data: "
        + as_json(
            {
                "choices": [{"index": 0, "delta": {"content": "b"}}],
                "usage": {"prompt_tokens": 5, "completion_tokens": 3 * (count + 1)},
            }
        )
        + b"\n\n"
        for count in range(4)
    ]
    async with Upstream(answering(streamed(*events))) as engine:
        bench.add(engine)
        await bench.stream()
        record = await bench.record()
        assert (record.input_tokens, record.output_tokens, record.usage_source) == (5, 12, "engine")


TIMED = """
gateway: {total_timeout_seconds: 360}
models:
  - {name: m, endpoints: [{url: "http://unused"}], price: {gpu_hour: "10"}}
  - {name: free, endpoints: [{url: "http://unused"}]}
routes:
  - {name: r, targets: [{model: free}], fallbacks: [{model: m}]}
"""


@pytest.mark.parametrize("name", ["m", "r"])
async def test_time_at_the_engine_is_held_until_the_request_times_out(
    redis: Redis, tmp_path: Path, client: HttpClient, name: str
) -> None:
    """360 s of $10 an hour, shared by ten: $0.10."""
    bench = Bench(redis, tmp_path, client, config=TIMED)
    poor, rich = who(99_999), who(100_000)
    async with (
        Upstream(answering(*[response(answer())] * 9)) as engine,
        Upstream(answering(*[DOWN] * 9)) as free,
    ):
        bench.add(engine, max_running=10)
        bench.add(free, model="free")
        await trust(redis, *poor.scopes)
        await refused(InsufficientQuotaError, bench, by(name), principal=poor)
        assert not engine.requests
        await trust(redis, *rich.scopes)
        assert (await bench.ask(by(name), principal=rich)).status == 200
        await bench.drain()
        ((spent, held),) = await spent_and_held(redis, KEY)
        assert held == 0
        assert spent < 20_000  # the few milliseconds that it took


@pytest.mark.parametrize(
    ("operation", "asked"),
    [(Operation.TOKENIZE, {"prompt": "Say it."}), (Operation.DETOKENIZE, {"tokens": [1, 2, 3]})],
)
async def test_a_tokenizer_is_free_and_needs_no_money(
    bench: Bench, operation: Operation, asked: dict[str, Any]
) -> None:
    principal = who(1)
    await trust(bench.redis, *principal.scopes, spent=1)
    async with Upstream(answering(response(as_json({"count": 3, "tokens": [1, 2, 3], "prompt": "abc"})))) as engine:
        bench.add(engine)
        reply = await bench.ask({"model": "m", **asked}, head=a_head(operation, principal=principal))
        assert reply.status == 200
        await bench.drain()
        assert await spent_and_held(bench.redis, KEY) == [(1, 0)]
