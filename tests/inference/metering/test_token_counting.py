"""Tokens of answers whose engine gave no usage."""

from typing import Any

import pytest
from tests.inference.bench import Bench
from tests.inference.engines import counting, silence
from tests.inference.making import CHAT, COMPLETION, SAID, STREAM, a_meter, an_endpoint, answer, as_json
from tests.net.upstream import SOON, Upstream, answering, response, streamed

from quarterdeck.inference.call import Operation
from quarterdeck.inference.engine.client import EngineClient
from quarterdeck.inference.metering.token_counting import count_received_tokens
from quarterdeck.inference.metering.transcript import Transcript
from quarterdeck.net.http_client import HttpClient
from quarterdeck.protocol.usage import Usage
from quarterdeck.settings.live import Live


@pytest.mark.parametrize("said", [response(b'{"detail":"Not Found"}', status=404), response(b"{}"), b"garbage"])
async def test_where_the_engine_can_not_count_tokens_are_estimated(bench: Bench, said: bytes) -> None:
    async with Upstream(answering(streamed(*SAID), said, said)) as engine:
        bench.add(engine)
        await bench.stream()
        record = await bench.record()
        sent = len(as_json(STREAM))
        assert (record.input_tokens, record.output_tokens) == (-(-sent // 4), -(-len("Hello there") // 4))
        assert record.usage_source == "estimated"


async def test_an_engine_that_does_not_come_to_count_is_not_waited_for(client: HttpClient) -> None:
    meter, body = a_meter(transcript=Transcript()), as_json(CHAT)
    async with Upstream(silence) as engine:
        endpoint = an_endpoint(url=engine.url)
        await count_received_tokens(EngineClient(client, Live(SOON)), endpoint, meter, body, seconds=0.01)
        assert (meter.usage, meter.usage_source) == (Usage(-(-len(body) // 4), 0, 0, 0), "estimated")
        await engine.closed.wait()


async def test_a_whole_answer_that_says_no_usage_is_counted(bench: Bench) -> None:
    async with Upstream(answering(response(answer("Hello there", usage=None)), counting(5), counting(2))) as engine:
        bench.add(engine)
        await bench.ask()
        record = await bench.record()
        assert (record.status, record.input_tokens, record.output_tokens) == ("ok", 5, 2)
        assert record.usage_source == "counted"
        assert engine.requests[2].json["prompt"] == "Hello there"


@pytest.mark.parametrize(
    ("prompt", "asked", "tokens"),
    [
        ("Hi", ["Hi"], 5),
        (["a", "b"], ["a", "b"], 10),
        ([1, 2, 3], [], 3),
        ([[1, 2], [3]], [], 3),
        (["a", [1, 2]], ["a"], 7),
        ([10**30] * 2, [], 2),
    ],
)
async def test_every_kind_of_prompt_is_counted(bench: Bench, prompt: Any, asked: list[str], tokens: int) -> None:
    said = [counting(5)] * (len(asked) + 1)
    async with Upstream(answering(response(as_json({"choices": [{"text": "Yo"}]})), *said)) as engine:
        bench.add(engine)
        await bench.ask({**COMPLETION, "prompt": prompt}, operation=Operation.COMPLETIONS)
        record = await bench.record()
        assert (record.input_tokens, record.output_tokens, record.usage_source) == (tokens, 5, "counted")
        assert [seen.json["prompt"] for seen in engine.requests[1:]] == [*asked, "Yo"]


async def test_a_request_with_a_thousand_prompts_is_estimated(bench: Bench) -> None:
    async with Upstream(answering(response(as_json({"choices": []})))) as engine:
        bench.add(engine)
        await bench.ask({**COMPLETION, "prompt": ["a"] * 1000}, operation=Operation.COMPLETIONS)
        assert (await bench.record()).usage_source == "estimated"
        assert len(engine.requests) == 1


async def test_what_is_not_understood_of_a_request_is_no_reason_not_to_settle(bench: Bench) -> None:
    async with Upstream(answering(response(as_json({"choices": []})))) as engine:
        bench.add(engine)
        await bench.ask({**COMPLETION, "prompt": [10**30]}, operation=Operation.COMPLETIONS)
        assert (await bench.record()).status == "ok"


async def test_tokens_that_a_server_elsewhere_did_not_count_are_estimated(bench: Bench) -> None:
    async with Upstream(answering(response(answer(usage=None)))) as engine:
        bench.add(engine, kind="openai")
        await bench.ask()
        assert (await bench.record()).usage_source == "estimated"
        assert len(engine.requests) == 1, "it is not asked to count"
