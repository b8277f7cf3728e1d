"""What is held for a request covers what it costs: random requests through the whole pipeline, and engines that make
the most of them.

The engines have a byte-level tokenizer's worst case (a token for each byte), count pictures, generate up to the limit
that they are sent, or as much as their context leaves, for every prompt and candidate; they fail, break off, report no
usage and keep prompts in their prefix cache. Clients leave in the middle.
"""

import asyncio
import base64
import json
import random
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.accounting.spending import a_scope, money, trust
from tests.inference.bench import Bench
from tests.inference.making import a_head, a_principal, as_json, event
from tests.inference.reading import Pieces
from tests.net.upstream import Peer, Script, Upstream, chunk, response, stream_head

from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import APIError, InsufficientQuotaError
from quarterdeck.inference.call import Operation
from quarterdeck.inference.call_state import Call
from quarterdeck.money import microdollars
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.redis import Redis
from quarterdeck.record import RequestRecord
from quarterdeck.settings.limits import Limits

CONFIG = """
models:
  - name: m
    endpoints: [{url: "http://unused"}]
    context: 2048
    max_output_tokens: 2048
    price: {input: "3", cached_input: "0.3", output: "9"}
  - name: n
    endpoints: [{url: "http://unused"}]
    max_output_tokens: 4096
    price: {input: "30", cached_input: "40", output: "90"}
  - {name: o, endpoints: [{url: "http://unused", kind: openai}], price: {input: "0.7", output: "70"}}
  - {name: free, endpoints: [{url: "http://unused"}], context: 4096, max_output_tokens: 4096}
routes:
  - {name: free-then-dear, targets: [{model: free}], fallbacks: [{model: n, after: [error, rate_limited]}]}
  - {name: split, targets: [{model: m, weight: 5}, {model: n, weight: 5}], fallbacks: [{model: o}]}
  - {name: cheap-then-hosted, targets: [{model: m}], fallbacks: [{model: o, after: [error, rate_limited]}]}
"""
NAMES = ("m", "n", "o", "free", "free-then-dear", "split", "cheap-then-hosted")
CONTEXT = {"m": 2048, "free": 4096}
UNLIMITED = 9000
"""What a model of unknown context generates if nothing limits it."""
PICTURE = "data:image/png;base64," + base64.b64encode(random.Random(1).randbytes(60_000)).decode()
TEXTS = ("What is a budget?", "0123456789" * 9, "语言模型的上下文" * 7, "qzxvkj" * 20, "\U0001f600" * 12, "a b c " * 30)


def prompt_tokens(asked: dict[str, Any]) -> int:
    if "messages" in asked:
        tokens = 30 + (400 if asked.get("tools") else 0)
        for message in asked["messages"]:
            content = message["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            for part in parts:
                tokens += 2048 if part["type"] == "image_url" else len(part["text"].encode())
        return tokens + len(json.dumps(asked.get("tools") or "")) // 2
    prompts = asked.get("prompt", asked.get("input"))
    if isinstance(prompts, str) or isinstance(prompts[0], int):
        prompts = [prompts]
    return sum(len(each.encode()) + 1 if isinstance(each, str) else len(each) for each in prompts)


def candidates(asked: dict[str, Any]) -> tuple[int, int]:
    """Choices, and the candidates that they are chosen from."""
    prompts = asked.get("prompt")
    count = len(prompts) if isinstance(prompts, list) and not isinstance(prompts[0], int) else 1
    n = asked.get("n") or 1
    return count * n, count * max(n, asked.get("best_of") or 1)


def an_engine(model: str, chance: random.Random) -> Script:
    """An engine of `model`. It answers, or fails, by chance."""

    async def answer(peer: Peer, path: str, asked: dict[str, Any]) -> None:
        if path == "/tokenize":
            await peer.say(response(as_json({"count": prompt_tokens(asked), "tokens": [1] * prompt_tokens(asked)})))
            return
        fate = chance.random()
        if fate < 0.12:
            status = chance.choice([503, 500, 429])
            await peer.say(response(b'{"error":{"message":"no","code":%d}}' % status, status=status))
            return
        if fate < 0.16:
            peer.reset()
            return
        prompt = prompt_tokens(asked)
        context = CONTEXT.get(model)
        if context is not None and prompt >= context:
            why = b'{"error":{"message":"too long","code":"context_length_exceeded"}}'
            await peer.say(response(why, status=400))
            return
        if path == "/v1/embeddings":
            counts = {"prompt_tokens": prompt, "total_tokens": prompt}
            await peer.say(response(as_json({"data": [], "usage": {**counts, "completion_tokens": 0}})))
            return
        limit = asked.get("max_completion_tokens") or asked.get("max_tokens")
        if limit is None:
            limit = 16 if "prompt" in asked else (context - prompt if context else UNLIMITED)
        if context is not None:
            limit = min(limit, context - prompt)
        choices, made = candidates(asked)
        length = chance.choice([limit, limit, chance.randint(1, limit)])
        counts = {"prompt_tokens": prompt, "completion_tokens": length * made}
        counts["total_tokens"] = sum(counts.values())
        cached = {"prompt_tokens_details": {"cached_tokens": chance.choice([0, prompt // 2, prompt])}}
        usage: dict[str, Any] | None = {**counts, **cached} if chance.random() < 0.85 else None
        is_chat = "messages" in asked
        text = "x" * min(length, 20_000)
        if not asked.get("stream"):
            said = {"message": {"content": text}} if is_chat else {"text": text}
            all_said = [{"index": index, "finish_reason": "length", **said} for index in range(choices)]
            await peer.say(response(as_json({"id": "a", "choices": all_said, "usage": usage})))
            return
        pieces = [text[at : at + 97] for at in range(0, len(text), 97)]
        breaks = chance.randrange(len(pieces) + 1) if chance.random() < 0.3 else None
        await peer.say(stream_head())
        for number, piece in enumerate(pieces):
            if number == breaks:
                await asyncio.sleep(0.005)
                peer.reset()
                return
            for index in range(choices):
                said = {"delta": {"content": piece}} if is_chat else {"text": piece}
                await peer.say(chunk(event({"choices": [{"index": index, "finish_reason": None, **said}]})))
        for index in range(choices):
            ending: dict[str, Any] = {"delta": {}} if is_chat else {"text": ""}
            await peer.say(chunk(event({"choices": [{"index": index, "finish_reason": "length", **ending}]})))
        if usage is not None:
            await peer.say(chunk(event({"choices": [], "usage": usage})))
        await peer.say(chunk(b"data: [DONE]\n\n") + chunk(b""))

    async def script(peer: Peer) -> None:
        while True:
            seen = await peer.request()
            await answer(peer, seen.path, seen.json)

    return script


def a_random_request(chance: random.Random) -> tuple[Operation, dict[str, Any]]:
    asked: dict[str, Any] = {"model": chance.choice(NAMES)}
    kind = chance.random()
    if kind < 0.1:
        ids = [[7] * chance.randint(1, 50)] * chance.randint(1, 4)
        asked["input"] = chance.choice([chance.choice(TEXTS), list(TEXTS), ids, ids[0]])
        return Operation.EMBEDDINGS, asked
    if chance.random() < 0.6:
        asked["stream"] = True
    if chance.random() < 0.2:
        asked["n"] = chance.randint(1, 4)
    if chance.random() < 0.6:
        asked["max_tokens"] = chance.choice([1, 5, 40, 300, 2**31 - 1 if chance.random() < 0.1 else 700])
    if kind < 0.45:
        texts = [chance.choice(TEXTS) for _ in range(chance.randint(1, 5))]
        ids = [[7] * chance.randint(1, 300) for _ in range(chance.randint(1, 5))]
        asked["prompt"] = chance.choice([texts[0], texts, ids, ids[0]])
        if chance.random() < 0.3:
            asked["best_of"] = chance.randint(1, 6)
        return Operation.COMPLETIONS, asked
    content: Any = chance.choice(TEXTS)
    if chance.random() < 0.2:
        pictures = [{"type": "image_url", "image_url": {"url": PICTURE}}] * chance.randint(1, 2)
        content = [{"type": "text", "text": content}, *pictures]
    asked["messages"] = [{"role": "user", "content": content}]
    if chance.random() < 0.1:
        asked["tools"] = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    if chance.random() < 0.2:
        asked["max_completion_tokens"] = chance.choice([2, 80, 500])
    return Operation.CHAT, asked


class Books:
    """The calls of a bench by request id, with what was held for each at its end."""

    def __init__(self, bench: Bench) -> None:
        self._calls: dict[str, Call] = {}
        begin = bench.settlement.begin

        def watched(org: str, request_id: str, note: Any) -> None:
            self._calls[request_id] = note.__self__
            begin(org, request_id, note)

        bench.settlement.begin = watched

    def held(self, record: RequestRecord) -> int:
        return self._calls[record.id].held


PRINCIPALS = {
    "wide": a_principal(key="wide", scopes=(a_scope("key:wide", 10**12), a_scope("org", 10**13))),
    "capped": a_principal(
        key="capped", limits=Limits(max_tokens=700), scopes=(a_scope("key:capped", 10**12), a_scope("org", 10**13))
    ),
    "tight": a_principal(key="tight", scopes=(a_scope("key:tight", 400_000), a_scope("org", 10**13))),
    "poor": a_principal(key="poor", scopes=(a_scope("key:poor", 1), a_scope("org", 10**13))),
}


async def one(bench: Bench, chance: random.Random, principal: Principal) -> str:
    operation, asked = a_random_request(chance)
    if principal.limits.max_tokens:
        for name in ("max_tokens", "max_completion_tokens"):
            if name in asked:
                asked[name] = min(asked[name], principal.limits.max_tokens)
    try:
        reply = await bench.ask(asked, a_head(operation, principal=principal))
    except APIError as error:
        return error.code or error.type
    if reply.stream is None:
        if reply.on_end is not None:  # a large answer is settled when its client has taken it
            reply.on_end()
        return "ok"
    pieces = 0
    leaves = chance.randint(0, 8) if chance.random() < 0.25 else 10**9
    async with Pieces(reply.stream) as stream:
        async for _ in stream:
            pieces += 1
            if pieces > leaves:
                break
    return "ok"


KINDS = {"resumed", "cancelled", "priced"}


def kinds(records: Sequence[RequestRecord]) -> set[str]:
    return {
        word
        for record in records
        for word, applies in (
            ("resumed", record.resumed),
            ("cancelled", record.status == "cancelled"),
            ("priced", record.cost > Decimal(0)),
        )
        if applies
    }


@pytest.mark.parametrize(
    ("seed", "count"),
    [(1, 700), (2, 700), (3, 10_000)],
)
async def test_no_request_costs_more_than_is_held_for_it(
    redis: Redis, tmp_path: Path, client: HttpClient, seed: int, count: int
) -> None:
    chance = random.Random(seed)
    bench = Bench(redis, tmp_path, client, config=CONFIG)
    books = Books(bench)
    scopes = {scope.id: scope for principal in PRINCIPALS.values() for scope in principal.scopes}
    await trust(redis, *scopes.values())
    outcomes: dict[str, int] = {}
    async with (
        Upstream(an_engine("m", chance)) as m1,
        Upstream(an_engine("m", chance)) as m2,
        Upstream(an_engine("n", chance)) as n1,
        Upstream(an_engine("n", chance)) as n2,
        Upstream(an_engine("o", chance)) as o,
        Upstream(an_engine("free", chance)) as free,
    ):
        for name, engine in (("m", m1), ("m", m2), ("n", n1), ("n", n2), ("free", free)):
            bench.add(engine, model=name)
        bench.add(o, model="o", kind="openai")
        left = iter(range(count))

        async def client_loop() -> None:
            # Which requests are resumed depends on times: of 700 it may be none.
            while next(left, None) is not None or (kinds(bench.seen) < KINDS and len(bench.seen) < 20 * count):
                outcome = await one(bench, chance, chance.choice(list(PRINCIPALS.values())))
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
                for endpoint in bench.listed.endpoints:
                    endpoint.breaker.record_success()  # all of them stay in use, however often they fail

        await asyncio.gather(*(client_loop() for _ in range(12)))
        await bench.drain()

    assert len(bench.seen) > count / 3, outcomes
    over = [(record, books.held(record)) for record in bench.seen if microdollars(record.cost) > books.held(record)]
    assert not over, f"{len(over)} of {len(bench.seen)}: {over[0]}"
    for id, scope in scopes.items():
        state = await money(redis, id)
        spent = sum(microdollars(r.cost) for r in bench.seen if id in ("org", f"key:{r.key}"))
        assert (state.spent, state.held) == (spent, 0), id
        assert scope.budget is not None
        assert spent <= microdollars(scope.budget.amount)
    assert kinds(bench.seen) == KINDS
    assert outcomes[InsufficientQuotaError.default_code] > 0  # type: ignore[index]
