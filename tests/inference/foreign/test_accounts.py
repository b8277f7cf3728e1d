"""Two accounts of one hosted model, one of which takes no requests: callers are served by the other one."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.inference.bench import Bench
from tests.inference.foreign.hosted_server import Habit, Refusal, failing, serving
from tests.inference.making import CHAT, a_principal
from tests.net.upstream import Upstream

from quarterdeck.errors import APIError
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.redis import Redis
from quarterdeck.settings.limits import Limits

NO_QUOTA = {"error": {"message": "quota", "type": "insufficient_quota", "code": "insufficient_quota"}}
REFUSALS: dict[str, Refusal] = {
    "429 with Retry-After": failing(429, {"error": {"message": "slow down"}}, "retry-after: 30"),
    "429": failing(429, {"error": {"message": "slow down"}}),
    "503 with Retry-After": failing(503, {"error": {"message": "busy"}}, "retry-after: 30"),
    "529": failing(529, {"error": {"message": "overloaded"}}),
    "no quota": failing(429, NO_QUOTA),
    "no balance": failing(402, {"error": {"message": "Insufficient Balance"}}),
    "a wrong key": failing(401, {"error": {"message": "Incorrect API key provided: sk-up"}}),
    "no permission": failing(403, {"error": {"message": "Project is archived"}}),
}
CONCURRENT, REQUESTS = 12, 120


async def run(bench: Bench) -> list[str]:
    """The outcomes of all requests, some at a time, each of a session of its own."""
    room = asyncio.Semaphore(CONCURRENT)

    async def ask(number: int) -> str:
        asked: dict[str, Any] = {**CHAT, "messages": [{"role": "user", "content": f"Question {number}"}]}
        async with room:
            try:
                return str((await bench.ask({**asked, "metadata": {"session_id": str(number)}})).status)
            except APIError as error:
                return f"{error.status} {error.code}"

    return await asyncio.gather(*map(ask, range(REQUESTS)))


@pytest.mark.parametrize("policy", ["least_load", "power_of_two", "prefix", "session", "weighted"])
@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
async def test_the_sound_account_serves(
    redis: Redis,
    tmp_path: Path,
    client: HttpClient,
    policy: str,
    refusal: Refusal,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = f"models: [{{name: m, endpoints: [{{url: 'http://unused'}}], routing: {{policy: {policy}}}}}]"
    bench = Bench(redis, tmp_path, client, config=config)
    async with Upstream(serving(Habit(refuse=refusal))) as bad, Upstream(serving(Habit())) as good:
        bench.add(bad, good, kind="openai")
        assert set(await run(bench)) == {"200"}
        lines = [line for line in caplog.records if "refuses requests" in line.getMessage()]
        assert 1 <= len(lines) <= 3, "a line for each rest, not for each request"
        assert len(good.requests) == REQUESTS
        assert len(bad.requests) <= 2 * CONCURRENT, "it is left alone"


TWO_MODELS = "models: [{name: m, endpoints: [{url: 'http://a'}]}, {name: n, endpoints: [{url: 'http://b'}]}]"
OF_MODEL = failing(429, {"error": {"message": "Rate limit reached for up-m in organization x."}}, "retry-after: 30")


@pytest.mark.parametrize(
    ("refusal", "key", "rests"),
    [
        *((refusal, "sk-up", True) for refusal in REFUSALS.values()),
        (REFUSALS["429 with Retry-After"], "sk-other", False),
        (OF_MODEL, "sk-up", False),
    ],
    ids=[*REFUSALS, "another key", "a limit of the model"],
)
async def test_the_other_models_of_an_account_that_refuses_leave_it_alone_too(
    redis: Redis, tmp_path: Path, client: HttpClient, refusal: Refusal, key: str, rests: bool
) -> None:
    bench = Bench(redis, tmp_path, client, config=TWO_MODELS)
    async with Upstream(serving(Habit(refuse=refusal))) as bad, Upstream(serving(Habit())) as good:
        for model, api_key in (("m", "sk-up"), ("n", key)):
            bench.add(bad, kind="openai", model=model, api_key=api_key, upstream_model=f"up-{model}")
            bench.add(good, kind="openai", model=model, api_key="sk-good", upstream_model=f"up-{model}")
        await bench.ask({**CHAT, "model": "m"})
        assert len(bad.requests) == 1
        await bench.ask({**CHAT, "model": "n"})
        assert len(bad.requests) == (1 if rests else 2)


async def test_where_both_are_full_the_caller_gets_429_and_each_is_asked_little(bench: Bench) -> None:
    full = serving(Habit(refuse=failing(429, {"error": {"message": "slow down"}}, "retry-after: 30")))
    async with Upstream(full) as one, Upstream(full) as other:
        bench.add(one, other, kind="openai")
        assert set(await run(bench)) == {"429 engine_overloaded"}
        assert len(one.requests) + len(other.requests) <= REQUESTS + 2 * CONCURRENT, "no request is multiplied"


@pytest.mark.parametrize("kind", ["openai", "ollama"])
@pytest.mark.parametrize("caps", [("max_tokens",), ("max_tokens", "max_completion_tokens")])
async def test_a_keys_own_cap_is_sent_in_the_word_that_the_server_reads(
    bench: Bench, kind: str, caps: tuple[str, ...]
) -> None:
    async with Upstream(serving(Habit(caps=caps))) as hosted:
        bench.add(hosted, kind=kind)
        capped = a_principal(limits=Limits(max_tokens=2))
        for asked in (CHAT, {**CHAT, "max_tokens": 1}, {**CHAT, "max_completion_tokens": 2}):
            await bench.ask(asked, principal=capped)
        assert [seen.json["max_tokens"] for seen in hosted.requests] == [2, 1, 2]
        assert [record.output_tokens for record in await bench.records()] == [2, 1, 2]
