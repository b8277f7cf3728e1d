"""Which answers can be resumed on another endpoint, and with which request."""

import re
import zlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.inference.making import CHAT, DONE, an_endpoint, as_json, delta
from tests.net.upstream import SOON, Peer, Upstream, answering, response, streamed

from quarterdeck.errors import EngineError
from quarterdeck.inference.call import Operation
from quarterdeck.inference.engine.client import EngineClient
from quarterdeck.inference.streaming.resume import (
    MAX_REPEATED,
    Continuation,
    LostStream,
    continuation_body,
    has_caught_up,
    is_resumable,
    plan_continuations,
    stable_ends,
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


def words_of(text: str) -> list[int]:
    """Tokens as GPT-2's splitting gives them: a word has the space before it, and the last of several spaces."""
    pieces = re.findall(r" ?\w+| ?[^\w\s]+|\s+(?!\S)|\s", text)
    assert "".join(pieces) == text
    return [zlib.crc32(piece.encode()) for piece in pieces]


async def plans(
    client: HttpClient, asked: dict[str, Any], text: str, tokens_of: Callable[[str], list[int] | None] = words_of
) -> tuple[list[Continuation], list[dict[str, Any]]]:
    """The continuations, and the requests to `/tokenize`. Chats are tokenized without a template."""

    async def script(peer: Peer) -> None:
        while True:
            seen = (await peer.request()).json
            if "messages" in seen:
                messages = seen["messages"]
                assert seen.get("continue_final_message", False) is (len(messages) > 1)
                prompt = "".join(message["content"] for message in messages[1:])
                tokens = tokens_of(prompt)
                tokens = None if tokens is None else [7, *tokens]
            else:
                tokens = tokens_of(seen["prompt"])
            await peer.say(
                response(b"{}", status=500) if tokens is None else response(as_json({"tokens": tokens, "count": 1}))
            )

    async with Upstream(script) as upstream:
        body = as_json(asked)
        found = await plan_continuations(
            EngineClient(client, Live(SOON)),
            an_endpoint(url=upstream.url),
            "theirs",
            requests.members(body),
            requests.decode(body, kind_of(asked)),
            LostStream(EngineError("gone"), text, tokens=9),
        )
        return found, [seen.json for seen in upstream.requests]


async def test_it_goes_on_before_the_last_words_then_with_the_whole_text(client: HttpClient) -> None:
    asked = COMPLETION | {"max_tokens": 10}
    (stable, whole), seen = await plans(client, asked, " Dear [Friend],\n\n")
    assert stable.repeated == " [Friend],\n\n"
    assert stable.body == as_json({"model": "m", "prompt": "Hi Dear", "max_tokens": 9})
    assert (whole.repeated, whole.tokens) == ("", 5)
    assert {each["model"] for each in seen} == {"theirs"}


async def test_a_boundary_where_the_tokens_change_is_not_used(client: HttpClient) -> None:
    """Tokenizers of Llama 3 and Qwen join line breaks to the sign before them."""

    def tokens_of(text: str) -> list[int]:
        return [zlib.crc32(piece.encode()) for piece in re.findall(r" ?\w+|[^\w\s]+\n*|\s", text)]

    (stable, *_), _ = await plans(client, COMPLETION, " Dear Ann,\n\nIt", tokens_of)
    assert stable.repeated == " Ann,\n\nIt"


async def test_the_first_word_starts_the_answer_again(client: HttpClient) -> None:
    (stable, _), _ = await plans(client, CHAT, "Hel")
    assert (stable.body, stable.tokens, stable.repeated) == (as_json(CHAT), 0, "Hel")


async def test_a_long_text_without_a_boundary_is_sent_whole(client: HttpClient) -> None:
    (whole,), _ = await plans(client, CHAT, "x" * (MAX_REPEATED + 1))
    assert (whole.tokens, whole.repeated) == (1, "")


async def test_a_text_without_spaces_ends_at_a_sign(client: HttpClient) -> None:
    (stable, _), _ = await plans(client, CHAT, "今日" * MAX_REPEATED + "、明日。雨")
    assert stable.repeated == "。雨"


async def test_if_only_the_repeated_tokens_are_left_they_are_asked_for(client: HttpClient) -> None:
    (only,), _ = await plans(client, COMPLETION | {"max_tokens": 2}, " one two")
    assert (only.tokens, only.repeated) == (1, " two")
    assert msgspec.json.decode(only.body)["max_tokens"] == 1


async def test_where_nobody_counts_events_are_counted(client: HttpClient) -> None:
    (found,), _ = await plans(client, COMPLETION | {"max_tokens": 10}, " there", lambda text: None)
    assert (found.tokens, found.repeated) == (9, "")
    assert msgspec.json.decode(found.body)["max_tokens"] == 1


async def test_white_space_that_a_template_cuts_off_will_be_said_again(client: HttpClient) -> None:
    found, _ = await plans(client, CHAT, "so far \n", lambda text: words_of(text.strip()))
    assert (found[-1].tokens, found[-1].repeated) == (2, " \n")


async def test_white_space_that_a_template_keeps_will_not(client: HttpClient) -> None:
    found, _ = await plans(client, CHAT, "so far \n")
    assert (found[-1].tokens, found[-1].repeated) == (3, "")


async def test_nothing_but_white_space_is_begun_anew(client: HttpClient) -> None:
    found, seen = await plans(client, CHAT, " \n")
    assert found == [Continuation(as_json(CHAT), 0, " \n")]
    assert seen == []


@given(st.text(st.sampled_from("ab .,\n'今、1"), max_size=60), st.text(st.sampled_from("ab .,\n'今、1"), max_size=20))
def test_the_tokens_before_a_stable_end_are_the_same_whatever_follows(text: str, more: str) -> None:
    for end in stable_ends(text):
        before = words_of(text[:end])
        assert words_of(text + more)[: len(before)] == before


# the stream that repeats


@pytest.mark.parametrize(
    ("pieces", "is_same"),
    [
        (["there"], True),
        (["th", "ere, friend"], True),
        (["", "th", "", "ere"], True),
        (["that"], False),
        (["th", "at"], False),
        (["th"], False),
        ([], False),
    ],
)
async def test_a_stream_is_taken_if_it_repeats_the_text(client: HttpClient, pieces: list[str], is_same: bool) -> None:
    events = [delta("", role="assistant"), *map(delta, pieces), delta(finish="stop"), DONE]
    async with Upstream(answering(streamed(*events))) as upstream:
        engines = EngineClient(client, Live(SOON))
        stream = (await engines.open(an_endpoint(url=upstream.url), Operation.CHAT, b"{}")).stream
        assert stream is not None
        try:
            assert await has_caught_up(stream, "there") is is_same
            if is_same:
                rest = stream.first
                while whole := await stream.read():
                    rest += whole
                assert rest == b"".join(events)
        finally:
            stream.close()
