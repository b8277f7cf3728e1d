"""An endpoint is lost in mid-stream: another continues, the client sees one stream, the record names both."""

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.inference.bench import Bench
from tests.inference.engines import BREAKS, and_wait
from tests.inference.making import CHAT, COMPLETION, DONE, SAID, a_principal, as_json, change, delta, event, usage
from tests.inference.reading import Pieces, read, text_of
from tests.net.upstream import Peer, Script, Upstream, answering, chunk, response, stream_head, streamed

from quarterdeck import content as contents
from quarterdeck.accounting.redis_keys import content_key
from quarterdeck.inference.call import Operation
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.http_connection import Timeouts
from quarterdeck.net.redis import Redis
from quarterdeck.protocol import sse

LOSSES = {name: failure for name, (failure, _) in BREAKS.items() if name != "it ends after the reason"}

PROMPT_TOKENS = 7

REST = (delta("", id="chatcmpl-2"), delta("friend", id="chatcmpl-2"), delta(finish="stop"))


def tokens_of(asked: dict[str, Any]) -> list[int]:
    """One token for each word of the answer so far, after a prompt of seven."""
    if asked.get("add_special_tokens") is False:  # the text without a prompt
        return list(range(len(asked["prompt"].split())))
    said = asked.get("prompt", "").removeprefix("Hi")
    if "messages" in asked:
        said = "".join(message["content"] for message in asked["messages"] if message["role"] == "assistant")
    return list(range(PROMPT_TOKENS + len(said.split())))


def going_on(*answers: bytes | Script, text: str = "Hello there") -> Script:
    """An engine that counts tokens, and answers other requests in this order. Its streams first repeat the end of
    `text` that the request leaves out."""
    waiting = list(answers)

    async def script(peer: Peer) -> None:
        while True:
            seen = await peer.request()
            if seen.path == "/tokenize":
                await peer.say(response(as_json({"tokens": tokens_of(seen.json), "count": len(tokens_of(seen.json))})))
                continue
            answer = waiting.pop(0)
            if isinstance(answer, bytes):
                await peer.say(repeating(answer, seen.json, text))
            else:
                await answer(peer)

    return script


def repeating(answer: bytes, asked: dict[str, Any], text: str) -> bytes:
    """The streamed answer, with the part of `text` that the request has not."""
    is_continuation = asked.get("continue_final_message") or asked.get("prompt", "Hi") != "Hi"
    if not answer.startswith(stream_head()) or not is_continuation:
        return answer
    if "messages" in asked:
        said = "".join(message["content"] for message in asked["messages"] if message["role"] == "assistant")
        missing = delta(text[len(said) :], id="chatcmpl-2")
    else:
        missing = event({"choices": [{"index": 0, "text": text[len(asked["prompt"]) - len("Hi") :]}]})
    return stream_head() + chunk(missing) + answer.removeprefix(stream_head())


def generations(engine: Upstream) -> list[dict[str, Any]]:
    return [seen.json for seen in engine.requests if seen.path != "/tokenize"]


@pytest.mark.parametrize("failure", LOSSES.values(), ids=LOSSES.keys())
async def test_another_endpoint_goes_on_and_the_caller_sees_one_stream(bench: Bench, failure: Script | bytes) -> None:
    rest = streamed(*REST, usage(PROMPT_TOKENS + 1, 2), DONE)
    async with Upstream(answering(failure)) as one, Upstream(going_on(rest)) as other:
        endpoints = bench.add(one, other)
        said = await bench.stream({"max_tokens": 9, "seed": 7})
        assert text_of(said) == "Hello therefriend"
        assert said.endswith(DONE)
        assert b"chatcmpl-2" not in said
        assert b'"usage"' not in said
        (asked,) = generations(other)
        assert asked["messages"] == [*CHAT["messages"], {"role": "assistant", "content": "Hello"}]
        assert (asked["continue_final_message"], asked["add_generation_prompt"]) == (True, False)
        assert (asked["max_tokens"], asked["seed"]) == (8, 7)
        record = await bench.record()
    assert (record.status, record.http_status, record.finish_reason, record.resumed) == ("ok", 200, "stop", 1)
    assert (record.input_tokens, record.output_tokens, record.usage_source) == (PROMPT_TOKENS, 3, "engine")
    assert record.cost == Decimal(PROMPT_TOKENS * 1 + 3 * 2) / 1_000_000
    assert [(a.endpoint, a.status, a.error) for a in record.attempts] == [
        ("e#1", 200, "engine_error"),
        ("e#2", 200, None),
    ]
    assert (record.endpoint, record.response_id) == ("e#2", "chatcmpl-1")
    assert [endpoint.breaker.failures for endpoint in endpoints] == [1, 0]


async def test_a_usage_that_was_asked_for_is_that_of_the_whole_answer(bench: Bench) -> None:
    rest = streamed(*REST, usage(PROMPT_TOKENS + 1, 2, prompt_tokens_details={"cached_tokens": 8}), DONE)
    async with Upstream(answering(streamed(*SAID[:2]))) as one, Upstream(going_on(rest)) as other:
        bench.add(one, other)
        said = await bench.stream({"stream_options": {"include_usage": True}})
        (counts,) = [found["usage"] for found in map(sse.parse, sse.events(said)) if found and found.get("usage")]
        assert (counts["prompt_tokens"], counts["completion_tokens"], counts["total_tokens"]) == (PROMPT_TOKENS, 3, 10)
        record = await bench.record()
        assert (record.input_tokens, record.cached_tokens, record.output_tokens) == (PROMPT_TOKENS, PROMPT_TOKENS, 3)


async def test_an_endpoint_that_falls_silent_is_replaced(redis: Redis, tmp_path: Path, client: HttpClient) -> None:
    bench = Bench(redis, tmp_path, client, timeouts=Timeouts(2.0, 5.0, 0.1))
    rest = streamed(*REST, usage(PROMPT_TOKENS + 1, 2), DONE)
    async with Upstream(answering(and_wait(*SAID[:2]))) as one, Upstream(going_on(rest)) as other:
        bench.add(one, other)
        assert text_of(await bench.stream()) == "Hello therefriend"
        assert (await bench.record()).attempts[0].error == "engine_timeout"
        await one.closed.wait()


async def test_a_completion_goes_on_with_its_prompt(bench: Bench) -> None:
    def text(said: str, finish: str | None = None) -> bytes:
        return event({"id": "cmpl-1", "choices": [{"index": 0, "text": said, "finish_reason": finish}]})

    first, rest = streamed(text(" Hello"), text(" there")), streamed(text(" friend", "stop"), usage(8, 2), DONE)
    async with Upstream(answering(first)) as one, Upstream(going_on(rest, text=" Hello there")) as other:
        bench.add(one, other)
        reply = await bench.ask({**COMPLETION, "stream": True}, operation=Operation.COMPLETIONS)
        assert reply.stream is not None
        said = await read(reply.stream)
        assert b" friend" in said
        assert said.endswith(DONE)
        (asked,) = generations(other)
        assert (asked["prompt"], asked["max_tokens"]) == ("Hi Hello", 15)
        record = await bench.record()
        assert (record.input_tokens, record.output_tokens, record.resumed) == (PROMPT_TOKENS, 3, 1)


async def test_it_may_be_lost_twice_and_come_back_to_the_first(bench: Bench) -> None:
    last = streamed(delta("!"), delta(finish="stop"), usage(PROMPT_TOKENS + 2, 2), DONE)
    first, second = streamed(*SAID[:2]), streamed(delta(" friend"))
    script = going_on(first, last, text="Hello there friend")
    async with Upstream(script) as one, Upstream(going_on(second)) as other:
        bench.add(one, other)
        assert text_of(await bench.stream()) == "Hello there friend!"
        record = await bench.record()
        assert (record.resumed, record.input_tokens, record.output_tokens) == (2, PROMPT_TOKENS, 4)
        assert [attempt.endpoint for attempt in record.attempts] == ["e#1", "e#2", "e#1"]


async def test_no_more_often_than_is_allowed(redis: Redis, tmp_path: Path, client: HttpClient) -> None:
    bench = Bench(redis, tmp_path, client, resumes=1)
    async with Upstream(going_on(streamed(*SAID[:2]))) as one, Upstream(going_on(streamed(delta("a")))) as other:
        bench.add(one, other)
        said = await bench.stream()
        assert b'"engine_error"' in said
        assert DONE not in said
        record = await bench.record()
        assert (record.status, record.resumed, len(record.attempts)) == ("error", 1, 2)
        assert (record.input_tokens, record.output_tokens, record.usage_source) == (PROMPT_TOKENS, 2, "counted")


async def test_not_at_all_where_it_is_turned_off(redis: Redis, tmp_path: Path, client: HttpClient) -> None:
    bench = Bench(redis, tmp_path, client, resumes=0)
    async with Upstream(going_on(streamed(*SAID[:2]))) as one, Upstream(going_on()) as other:
        bench.add(one, other)
        assert DONE not in await bench.stream()
        assert other.requests == []


@pytest.mark.parametrize("status", [500, 400, 503])
async def test_where_the_second_refuses_the_third_is_asked(bench: Bench, status: int) -> None:
    refusing = going_on(response(b'{"error":{"message":"no","code":1}}', status=status))
    rest = going_on(streamed(*REST, usage(PROMPT_TOKENS + 1, 2), DONE))
    async with Upstream(answering(streamed(*SAID[:2]))) as one, Upstream(refusing) as two, Upstream(rest) as three:
        bench.add(one, two, three)
        assert text_of(await bench.stream()) == "Hello therefriend"
        record = await bench.record()
        assert [(attempt.endpoint, attempt.status) for attempt in record.attempts] == [
            ("e#1", 200),
            ("e#2", status),
            ("e#3", 200),
        ]


async def test_where_nobody_else_is_there_the_caller_is_told_at_once(bench: Bench) -> None:
    async with Upstream(going_on(streamed(*SAID[:2]))) as engine:
        bench.add(engine)
        assert b'"engine_error"' in await bench.stream()
        record = await bench.record()
        assert (record.endpoint, record.resumed, len(record.attempts)) == ("e#1", 0, 1)
        assert (record.input_tokens, record.output_tokens, record.usage_source) == (PROMPT_TOKENS, 2, "counted")


async def test_an_endpoint_that_is_no_vllm_is_not_asked_to_go_on(bench: Bench) -> None:
    async with Upstream(going_on(streamed(*SAID[:2]))) as one, Upstream(going_on()) as other:
        change(bench.add(one, other)[1], kind="openai")
        assert DONE not in await bench.stream()
        assert other.requests == []


async def test_an_answer_whose_last_token_was_sent_is_ended(bench: Bench) -> None:
    rest = streamed(delta(finish="length"), usage(PROMPT_TOKENS + 1, 1), DONE)
    async with Upstream(going_on(streamed(*SAID[:2]))) as one, Upstream(going_on(rest)) as other:
        bench.add(one, other)
        said = await bench.stream({"max_tokens": 2})
        assert text_of(said) == "Hello there"
        assert said.endswith(DONE)
        (asked,) = generations(other)
        assert asked["max_tokens"] == 1
        record = await bench.record()
        assert (record.finish_reason, record.input_tokens, record.output_tokens) == ("length", PROMPT_TOKENS, 2)


async def test_where_no_token_is_left_nobody_is_asked_for_one(bench: Bench) -> None:
    untouched = streamed(*map(delta, "x" * 201))

    async def script(peer: Peer) -> None:
        while True:
            asked = (await peer.request()).json
            count = PROMPT_TOKENS + 201 * ("continue_final_message" in asked)
            await peer.say(response(as_json({"tokens": list(range(count)), "count": count})))

    async with Upstream(answering(untouched)) as one, Upstream(script) as other:
        bench.add(one, other)
        assert DONE not in await bench.stream({"max_tokens": 201})
        assert generations(other) == []
        record = await bench.record()
        assert [(a.endpoint, a.error) for a in record.attempts] == [("e#1", "engine_error"), ("e#2", "nothing_left")]


async def test_a_stream_that_says_something_else_is_replaced_by_one_after_the_whole_text(bench: Bench) -> None:
    other_words = stream_head() + b"".join(chunk(each) for each in (delta(" th"), delta("ose"))) + chunk(b"")
    rest = streamed(delta("friend", id="chatcmpl-2"), delta(finish="stop"), usage(PROMPT_TOKENS + 2, 1), DONE)

    async def diverging(peer: Peer) -> None:
        await peer.say(other_words)

    async with Upstream(answering(streamed(*SAID[:2]))) as one, Upstream(going_on(diverging, rest)) as other:
        bench.add(one, other)
        said = await bench.stream()
        assert text_of(said) == "Hello therefriend"
        assert said.endswith(DONE)
        first, second = generations(other)
        assert (first["messages"][-1]["content"], second["messages"][-1]["content"]) == ("Hello", "Hello there")
        record = await bench.record()
        assert (record.status, record.input_tokens, record.output_tokens) == ("ok", PROMPT_TOKENS, 3)


async def test_an_endpoint_that_can_not_repeat_is_not_blamed(bench: Bench) -> None:
    """Only the repeated token is left, and it says another one."""
    other_words = stream_head() + chunk(delta(" those")) + chunk(delta(finish="length")) + chunk(DONE) + chunk(b"")

    async def diverging(peer: Peer) -> None:
        await peer.say(other_words)

    async with Upstream(answering(streamed(*SAID[:2]))) as one, Upstream(going_on(diverging)) as other:
        endpoints = bench.add(one, other)
        said = await bench.stream({"max_tokens": 2})
        assert b"those" not in said
        assert b"engine_error" in said
        record = await bench.record()
        assert [(a.endpoint, a.error) for a in record.attempts] == [("e#1", "engine_error"), ("e#2", "resume_diverged")]
        assert endpoints[1].breaker.failures == 0


async def test_a_caller_who_leaves_after_it_pays_for_all_that_was_said(bench: Bench) -> None:
    rest = and_wait(delta(" there"), delta(" friend"))
    async with Upstream(answering(streamed(*SAID[:2]))) as one, Upstream(going_on(rest)) as other:
        bench.add(one, other)
        reply = await bench.ask({**CHAT, "stream": True})
        assert reply.stream is not None
        async with Pieces(reply.stream) as pieces:
            async for piece in pieces:
                if b"friend" in piece:
                    break
        record = await bench.record()
        assert (record.status, record.resumed) == ("cancelled", 1)
        assert (record.input_tokens, record.output_tokens, record.usage_source) == (PROMPT_TOKENS, 3, "counted")


async def test_a_caller_who_leaves_during_it_leaves_nothing_behind(bench: Bench) -> None:
    counting = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        counting.set()
        await peer.until_gone()

    async def breaks(peer: Peer) -> None:
        await peer.say(stream_head() + chunk(b"".join(SAID[:2])) + chunk(b""))

    async with Upstream(going_on(breaks)) as one, Upstream(script) as other:
        bench.add(one, other)
        task = asyncio.create_task(bench.stream())
        await counting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await other.closed.wait()
        record = await bench.record()
        assert (record.status, record.resumed) == ("cancelled", 0)
        assert [attempt.endpoint for attempt in record.attempts] == ["e#1", "e#2"]


async def test_what_is_captured_of_a_resumed_stream_is_what_the_client_got(bench: Bench) -> None:
    rest = streamed(*REST, usage(PROMPT_TOKENS + 1, 2), DONE)
    failure = next(iter(LOSSES.values()))
    async with Upstream(answering(failure)) as one, Upstream(going_on(rest)) as other:
        bench.add(one, other)
        said = await bench.stream({"max_tokens": 9, "seed": 7}, principal=a_principal(content="full"))
        record = await bench.record()
    captured = contents.decode(await bench.redis.call("GET", content_key("default", record.id)))
    (choice,) = msgspec.json.decode(captured.output or b"")
    assert record.resumed == 1
    assert choice == {
        "index": 0,
        "message": {"role": "assistant", "content": text_of(said)},
        "finish_reason": "stop",
    }
