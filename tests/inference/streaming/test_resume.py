"""Which answers can be resumed on another endpoint, and with which request."""

from typing import Any

import msgspec
import pytest
from tests.inference.making import CHAT, an_endpoint, as_json
from tests.net.upstream import SOON, Upstream, answering, response

from quarterdeck.errors import EngineError
from quarterdeck.inference.call import Operation
from quarterdeck.inference.engine.client import EngineClient
from quarterdeck.inference.streaming.resume import (
    Continuation,
    LostStream,
    continuation_body,
    is_resumable,
    plan_continuation,
)
from quarterdeck.net.http_client import HttpClient
from quarterdeck.protocol import requests
from quarterdeck.settings.live import Live

COMPLETION = {"model": "m", "prompt": "Hi"}


def kind_of(asked: dict[str, Any]) -> type[requests.GenerationRequest]:
    return requests.ChatCompletionRequest if "messages" in asked else requests.CompletionRequest


def resumable(asked: dict[str, Any], text: str = "so far", operation: Operation | None = None) -> bool:
    body = as_json(asked)
    if operation is None:
        operation = Operation.CHAT if "messages" in asked else Operation.COMPLETIONS
    return is_resumable(operation, requests.members(body), requests.decode(body, kind_of(asked)), text)


def body_of(asked: dict[str, Any], text: str, tokens: int) -> dict[str, Any] | None:
    body = as_json(asked)
    made = continuation_body(requests.members(body), requests.decode(body, kind_of(asked)), text, tokens)
    return None if made is None else msgspec.json.decode(made)


@pytest.mark.parametrize("asked", [CHAT, COMPLETION])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"n": 1, "stream": True, "stream_options": {"include_usage": True}},
        {"temperature": 0, "top_p": 0.5, "top_k": 7, "min_p": 0.1, "seed": 7, "min_tokens": 3, "ignore_eos": True},
        {"max_tokens": 7, "max_completion_tokens": 7, "logit_bias": {"7": 1}},
        {"tools": [], "tool_choice": "none", "response_format": {"type": "text"}, "logprobs": None},
        {"frequency_penalty": 0, "presence_penalty": 0.0, "repetition_penalty": 1.0, "echo": False, "suffix": None},
        {"user": "u", "metadata": {"a": "b"}, "skip_special_tokens": True, "stop": None},
        {"stop": ["\n\n", "END"]},
    ],
)
def test_what_depends_on_the_text_alone_can_be_gone_on_with(asked: dict[str, Any], more: dict[str, Any]) -> None:
    assert resumable(asked | more)


@pytest.mark.parametrize(
    "more",
    [
        {"n": 2},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
        {"structured_outputs": {"regex": "a+"}},
        {"guided_choice": ["a", "b"]},
        {"logprobs": True},
        {"logprobs": True, "top_logprobs": 2},
        {"prompt_logprobs": 1},
        {"frequency_penalty": 0.5},
        {"presence_penalty": -1},
        {"repetition_penalty": 1.1},
        {"bad_words": ["no"]},
        {"echo": True},
        {"continue_final_message": True},
        {"add_generation_prompt": False},
        {"skip_special_tokens": False},
        {"include_reasoning": False},
        {"return_token_ids": True},
        {"use_beam_search": True},
        {"something_new": 7},
    ],
)
def test_anything_that_would_begin_anew_can_not(more: dict[str, Any]) -> None:
    assert not resumable(CHAT | more)


@pytest.mark.parametrize(
    "more",
    [
        {"prompt": ["Hi"]},
        {"prompt": [1, 2]},
        {"n": 2},
        {"best_of": 2},
        {"echo": True},
        {"suffix": "end"},
        {"logprobs": 0},
    ],
)
def test_nor_can_such_completions(more: dict[str, Any]) -> None:
    assert not resumable(COMPLETION | more)


def test_nor_can_embeddings() -> None:
    asked = requests.decode(as_json({"model": "m", "input": "a"}), requests.EmbeddingRequest)
    assert not is_resumable(Operation.EMBEDDINGS, {}, asked, "")


@pytest.mark.parametrize(
    ("text", "stop", "sound"),
    [
        ("one two E", "END", False),
        ("one two EN", ["x", "END"], False),
        ("one two\n", ["\n\n"], False),
        ("one two", "END", True),
        ("END of it", "END", True),
        ("one E.", "END", True),
        ("", "END", True),
        ("x", "y", True),
    ],
)
def test_a_stop_string_may_not_lie_across_the_seam(text: str, stop: Any, sound: bool) -> None:
    assert resumable(CHAT | {"stop": stop}, text) is sound


# the request


def test_a_chat_goes_on_with_its_last_message() -> None:
    asked = CHAT | {"stream": True, "seed": 7, "max_tokens": 10, "max_completion_tokens": 9, "min_tokens": 5}
    assert body_of(asked, "so \n", 3) == asked | {
        "messages": [*asked["messages"], {"role": "assistant", "content": "so \n"}],
        "continue_final_message": True,
        "add_generation_prompt": False,
        "max_tokens": 7,
        "max_completion_tokens": 6,
        "min_tokens": 2,
    }


def test_a_completion_goes_on_with_its_prompt() -> None:
    assert body_of(COMPLETION | {"max_tokens": 10}, " there", 2) == {
        "model": "m",
        "prompt": "Hi there",
        "max_tokens": 8,
    }


def test_a_completion_has_sixteen_tokens_where_nothing_is_said() -> None:
    assert body_of(COMPLETION, " there", 2) == {"model": "m", "prompt": "Hi there", "max_tokens": 14}


def test_with_no_text_it_begins_anew() -> None:
    assert body_of(CHAT | {"max_tokens": 10}, "", 0) == CHAT | {"max_tokens": 10}


@pytest.mark.parametrize("tokens", [10, 11])
def test_where_no_token_is_left_nothing_is_asked(tokens: int) -> None:
    assert body_of(CHAT | {"max_completion_tokens": 10}, "so far", tokens) is None


# the endpoint's tokenizer


async def asked_at(client: HttpClient, asked: dict[str, Any], text: str, *tokens: list[int] | None) -> Any:
    """The continuation, and the requests to `/tokenize` in order."""
    script = answering(
        *[response(as_json({"tokens": each})) if each is not None else response(b"{}", status=500) for each in tokens]
    )
    async with Upstream(script) as upstream:
        body = as_json(asked)
        continuation = await plan_continuation(
            EngineClient(client, Live(SOON)),
            an_endpoint(url=upstream.url),
            "theirs",
            requests.members(body),
            requests.decode(body, kind_of(asked)),
            LostStream(EngineError("gone"), text, tokens=9),
        )
        return continuation, [seen.json for seen in upstream.requests]


async def test_the_text_is_as_many_tokens_as_the_prompt_grows_by(client: HttpClient) -> None:
    found, said = await asked_at(client, COMPLETION | {"max_tokens": 10}, " there", [1, 2, 3], [1, 2, 3])
    assert found == Continuation(as_json({"model": "m", "prompt": "Hi there", "max_tokens": 10}), 0, "")
    assert sorted(each["prompt"] for each in said) == ["Hi", "Hi there"]
    assert {each["model"] for each in said} == {"theirs"}


async def test_where_nobody_counts_events_are_counted(client: HttpClient) -> None:
    found, _ = await asked_at(client, COMPLETION | {"max_tokens": 10}, " there", None, None)
    assert found.tokens == 9
    assert msgspec.json.decode(found.body)["max_tokens"] == 1


async def by_text(client: HttpClient, text: str, tokens_of: Any) -> Continuation | None:
    async def script(peer: Any) -> None:
        while True:
            seen = await peer.request()
            messages = seen.json["messages"]
            said = messages[1]["content"] if len(messages) > 1 else ""
            assert seen.json.get("continue_final_message", False) is (len(messages) > 1)
            await peer.say(response(as_json({"tokens": tokens_of(said)})))

    async with Upstream(script) as upstream:
        body = as_json(CHAT)
        return await plan_continuation(
            EngineClient(client, Live(SOON)),
            an_endpoint(url=upstream.url),
            "m",
            requests.members(body),
            requests.decode(body, requests.ChatCompletionRequest),
            LostStream(EngineError("gone"), text, tokens=9),
        )


async def test_white_space_that_a_template_cuts_off_will_be_said_again(client: HttpClient) -> None:
    found = await by_text(client, "so far \n", lambda said: [7, *said.strip().encode()])
    assert found is not None
    assert (found.tokens, found.repeated) == (6, " \n")


async def test_white_space_that_a_template_keeps_will_not(client: HttpClient) -> None:
    found = await by_text(client, "so far \n", lambda said: [7, *said.encode()])
    assert found is not None
    assert (found.tokens, found.repeated) == (8, "")


async def test_nothing_but_white_space_is_begun_anew(client: HttpClient) -> None:
    found, said = await asked_at(client, CHAT, " \n")
    assert found == Continuation(as_json(CHAT), 0, " \n")
    assert said == []
