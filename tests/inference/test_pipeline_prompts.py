"""A request that names a prompt is the request that its version makes of it: for engine, holds, cache and record."""

import json
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.inference.bench import CONFIG, Bench, refused
from tests.inference.making import CHAT, DONE, SAID, a_head, a_principal, answer, usage
from tests.inference.reading import read
from tests.net.upstream import Upstream, answering, response, streamed

from quarterdeck.errors import BadRequestError, EngineError, NotFoundError
from quarterdeck.inference.call import Operation, Reply
from quarterdeck.inference.estimation import estimate
from quarterdeck.inference.request import decode
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.redis import Redis

GREET = {
    "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Greet {{ name }}"}],
    "model": "m",
    "parameters": {"temperature": 0, "max_tokens": 64},
    "response_format": {"type": "json_object"},
    "tools": [{"type": "function", "function": {"name": "wave"}}],
    "tool_choice": "auto",
}
SHORT = {"text": "Hi {{ name }}", "model": "m"}


@pytest.fixture
async def bench(redis: Redis, tmp_path: Path, client: HttpClient) -> Bench:
    made = Bench(redis, tmp_path, client, config=f"{CONFIG}\ncache: {{default: {{exact: true}}}}")
    made.prompts.put("greet", GREET, {**GREET, "parameters": {"temperature": 0}}, production=1, staging=2)
    made.prompts.put("short", SHORT, production=1)
    made.prompts.put("red", SHORT, teams=("red",), production=1)
    await made.prompts.load()
    return made


def named(id: str, **fields: Any) -> dict[str, Any]:
    fields.setdefault("variables", {"name": "Ann"})
    return {"id": id, **fields}


def header(reply: Reply, name: bytes) -> str | None:
    value = dict(reply.headers).get(name)
    return value.decode() if value else None


async def sent(bench: Bench, asked: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """The body that the engine got, without its part of the prefix cache."""
    async with Upstream(answering(response(answer()))) as engine:
        bench.add(engine)
        await bench.ask(dict(asked), **changes)
        await bench.drain()
        body: dict[str, Any] = json.loads(engine.requests[0].body)
        bench.listed.endpoints.clear()
    body.pop("cache_salt", None)
    return body


async def test_the_engine_gets_what_the_version_renders(bench: Bench) -> None:
    body = await sent(bench, {"prompt": named("greet")})
    assert body == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Greet Ann"}],
        **{name: GREET[name] for name in ("response_format", "tools", "tool_choice")},
        "temperature": 0,
        "max_tokens": 64,
    }


async def test_what_the_request_sets_goes_first(bench: Bench) -> None:
    own = {
        "temperature": 1,
        "max_completion_tokens": 7,
        "tools": [{"type": "function", "function": {"name": "own"}}],
        "response_format": {"type": "text"},
        "stop": "x",
    }
    body = await sent(bench, {**CHAT, "prompt": named("greet"), **own})
    assert {name: body.get(name) for name in own} == own
    assert "max_tokens" not in body
    assert "tool_choice" not in body
    assert body["messages"][2:] == CHAT["messages"]


async def test_a_null_is_not_set(bench: Bench) -> None:
    body = await sent(bench, {"model": None, "messages": None, "temperature": None, "prompt": named("greet")})
    assert (body["model"], body["temperature"], len(body["messages"])) == ("m", 0, 2)


async def test_a_clients_model_can_name_the_prompt(bench: Bench) -> None:
    variables = {"variables": {"name": "Ann"}}
    body = await sent(bench, {**CHAT, "model": "prompt:greet@staging", "prompt": variables})
    assert body["model"] == "m"
    assert body["messages"][1:] == [{"role": "user", "content": "Greet Ann"}, *CHAT["messages"]]
    assert "max_tokens" not in body
    body = await sent(bench, {**CHAT, "model": "prompt:greet#1", "prompt": variables})
    assert body["max_tokens"] == 64


async def test_a_text_is_the_question_or_the_instruction_before_messages(bench: Bench) -> None:
    assert (await sent(bench, {"prompt": named("short")}))["messages"] == [{"role": "user", "content": "Hi Ann"}]
    body = await sent(bench, {**CHAT, "prompt": named("short")})
    assert body["messages"] == [{"role": "system", "content": "Hi Ann"}, *CHAT["messages"]]


async def test_a_completions_prompt_is_an_object_or_follows_the_models(bench: Bench) -> None:
    body = await sent(bench, {"model": "m", "prompt": named("short")}, operation=Operation.COMPLETIONS)
    assert body["prompt"] == "Hi Ann"
    bench.prompts.put("plain", {"text": "A: ", "model": "m"}, production=1)
    await bench.prompts.load()
    body = await sent(bench, {"model": "prompt:plain", "prompt": "b"}, operation=Operation.COMPLETIONS)
    assert body == {"model": "m", "prompt": "A: b"}


async def test_header_and_record_name_the_version(bench: Bench) -> None:
    async with Upstream(answering(response(answer()), streamed(*SAID, usage(7, 3), DONE))) as engine:
        bench.add(engine)
        reply = await bench.ask({"prompt": named("greet")})
        assert header(reply, b"x-quarterdeck-prompt") == "greet@1"
        reply = await bench.ask({"prompt": named("greet", version=2), "stream": True})
        assert reply.stream is not None
        await read(reply.stream)
        await reply.stream.aclose()
        assert header(reply, b"x-quarterdeck-prompt") == "greet@2"
        found = [(each.prompt, each.prompt_version, each.prompt_label) for each in await bench.records()]
    assert sorted(found, key=str) == [("greet", "1", "production"), ("greet", "2", None)]


async def test_an_engines_error_names_the_version(bench: Bench) -> None:
    async with Upstream(answering(response(b"{}", status=500))) as engine:
        bench.add(engine)
        failed = await refused(EngineError, bench, {"prompt": named("short")})
        record = await bench.record()
    assert failed.headers["x-quarterdeck-prompt"] == "short@1"
    assert (record.prompt, record.prompt_version, record.status) == ("short", "1", "error")


async def test_a_request_without_a_prompt_has_none(bench: Bench) -> None:
    async with Upstream(answering(response(answer()))) as engine:
        bench.add(engine)
        assert header(await bench.ask(), b"x-quarterdeck-prompt") is None
        record = await bench.record()
        assert (record.prompt, record.prompt_version, record.prompt_label) == (None, None, None)


async def test_answers_are_cached_by_version_and_rendered_body(bench: Bench) -> None:
    bench.prompts.put("twin", {**GREET, "parameters": {"temperature": 0, "max_tokens": 64}}, production=1)
    await bench.prompts.load()
    async with Upstream(answering(*[response(answer())] * 4)) as engine:
        bench.add(engine)
        seen = []
        for prompt in (
            named("greet"),
            named("greet"),  # a hit
            named("greet", version=1),  # the same version by its number
            named("greet", variables={"name": "Bo"}),
            named("greet", label="staging"),
            named("twin"),  # another prompt that renders the same
        ):
            reply = await bench.ask({"prompt": prompt})
            await bench.drain()
            seen.append((header(reply, b"x-cache"), header(reply, b"x-quarterdeck-prompt")))
        assert seen == [
            ("miss", "greet@1"),
            ("hit", "greet@1"),
            ("hit", "greet@1"),
            ("miss", "greet@1"),
            ("miss", "greet@2"),
            ("miss", "twin@1"),
        ]


async def test_what_is_held_is_that_of_the_rendered_body(bench: Bench) -> None:
    long = "x" * 5000
    executor = bench.pipeline._prompts
    request = executor.decode(Operation.CHAT, json.dumps({"prompt": named("greet", variables={"name": long})}).encode())
    rendered = await executor.render(a_head(), request)  # type: ignore[arg-type]
    plain = decode(Operation.CHAT, rendered.body)
    assert estimate(rendered) == estimate(plain)
    assert estimate(rendered).most_prompt > 5000
    assert estimate(rendered).most_output == 64


@pytest.mark.parametrize(
    ("prompt", "param", "code"),
    [
        (named("greet", variables={}), "prompt.variables.name", "invalid_prompt_variables"),
        (named("greet", variables={"name": "a", "b": 1}), "prompt.variables.b", "invalid_prompt_variables"),
        (named("greet", variables={"name": 1}), "prompt.variables.name", "invalid_prompt_variables"),
        (named("greet", variables={"name": "a" * 2**20}), "prompt", "prompt_too_large"),
        ({}, "prompt.id", "missing_required_parameter"),
        ("greet", "prompt", "invalid_type"),
    ],
)
async def test_a_prompt_that_can_not_be_rendered_is_a_400(bench: Bench, prompt: Any, param: str, code: str) -> None:
    error = await refused(BadRequestError, bench, {"model": "m", "prompt": prompt})
    assert (error.param, error.code) == (param, code)


async def test_values_nested_too_deeply_are_a_400_and_no_crash(bench: Bench) -> None:
    bench.prompts.put("deep", {"text": "{{ x }}", "variables": {"x": {"type": "array"}}, "model": "m"}, production=1)
    await bench.prompts.load()
    for depth in (100, 500, 900, 990, 2000):
        body = '{"prompt": {"id": "deep", "variables": {"x": %s}}}' % ("[" * depth + "]" * depth)
        async with Upstream(answering(response(answer()))) as engine:
            bench.add(engine)
            try:
                await bench.ask(body.encode())
            except BadRequestError as error:
                assert error.status == 400
            await bench.drain()
            bench.listed.endpoints.clear()


@pytest.mark.parametrize(
    ("prompt", "code"),
    [
        (named("nothing"), "prompt_not_found"),
        (named("red"), "prompt_not_found"),
        (named("greet", version=9), "prompt_version_not_found"),
        (named("greet", label="nothing"), "label_not_found"),
    ],
)
async def test_what_does_not_exist_is_a_404(bench: Bench, prompt: Any, code: str) -> None:
    assert (await refused(NotFoundError, bench, {"model": "m", "prompt": prompt})).code == code


async def test_a_teams_prompt_serves_its_keys(bench: Bench) -> None:
    body = await sent(bench, {"prompt": named("red")}, principal=a_principal(team="red"))
    assert body["messages"][0]["content"] == "Hi Ann"


async def test_a_key_may_use_a_prompt_only_with_models_that_it_may_use(bench: Bench) -> None:
    narrow = a_principal(models=frozenset({"other"}))
    assert (await refused(NotFoundError, bench, {"prompt": named("greet")}, principal=narrow)).code == "model_not_found"


async def test_other_operations_take_no_prompt(bench: Bench) -> None:
    asked = {"model": "prompt:greet", "input": "a"}
    error = await refused(NotFoundError, bench, asked, operation=Operation.EMBEDDINGS)
    assert error.code == "model_not_found"


async def test_a_chat_prompt_is_no_completion(bench: Bench) -> None:
    asked = {"model": "m", "prompt": named("greet")}
    error = await refused(BadRequestError, bench, asked, operation=Operation.COMPLETIONS)
    assert error.code == "prompt_type_mismatch"


async def test_a_prompt_without_a_model_needs_the_requests(bench: Bench) -> None:
    bench.prompts.put("bare", {"text": "Hi"}, production=1)
    await bench.prompts.load()
    asked = {"prompt": {"id": "bare"}}
    assert (await refused(BadRequestError, bench, asked)).param == "model"
    assert (await refused(BadRequestError, bench, {**CHAT, "model": "prompt:bare"})).param == "model"
    assert (await sent(bench, {**asked, "model": "m"}))["messages"] == [{"role": "user", "content": "Hi"}]


async def test_a_user_stays_with_a_version_of_a_canary(bench: Bench) -> None:
    split = {"split": [{"version": 1, "weight": 50}, {"version": 2, "weight": 50}]}
    bench.prompts.put("greet", GREET, {**GREET, "tool_choice": "none"}, production=split)
    await bench.prompts.load()
    executor, versions = bench.pipeline._prompts, []
    for user in ("ann", "bo", "cy", "di", "ed", "flo", "gus", "hal"):
        asked = json.dumps({"prompt": named("greet"), "user": user}).encode()
        picked = set()
        for _ in range(5):
            request = executor.decode(Operation.CHAT, asked)
            rendered = await executor.render(a_head(), request)  # type: ignore[arg-type]
            assert rendered.prompt is not None
            picked.add(rendered.prompt.version)
        assert len(picked) == 1
        versions += picked
    assert set(versions) == {"1", "2"}


async def test_a_prompts_cost_is_that_of_its_answer(bench: Bench) -> None:
    async with Upstream(answering(response(answer()))) as engine:
        bench.add(engine)
        await bench.ask({"prompt": named("greet")})
        assert (await bench.record()).cost == Decimal(7 * 1 + 3 * 2) / 1_000_000
