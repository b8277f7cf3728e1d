"""A stream's usage: requested from every engine, shown to the clients that asked for it."""

import json
from typing import Any

import msgspec
import pytest

from quarterdeck.protocol import requests
from quarterdeck.protocol.stream_usage import includes_usage, split_usage, with_usage
from quarterdeck.protocol.usage import Usage

DONE = b"data: [DONE]\n\n"


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def usage(output: int) -> dict[str, int]:
    return {"prompt_tokens": 7, "completion_tokens": output}


TEXT = event({"id": "a", "choices": [{"index": 0}]})
ONLY_USAGE = event({"id": "b", "choices": [], "usage": usage(3)})
BOTH = event({"id": "c", "choices": [{"index": 0}], "usage": usage(2)})
NONSENSE = event({"id": "d", "choices": [], "usage": {"prompt_tokens": -1}})


@pytest.mark.parametrize(
    ("options", "asked"),
    [(None, False), ({}, False), ({"include_usage": None}, False), ({"include_usage": True}, True)],
)
def test_a_client_asks_by_include_usage(options: Any, asked: bool) -> None:
    body = {"model": "m", "prompt": "Hi", "stream": True, "stream_options": options}
    request = requests.decode(json.dumps(body).encode(), requests.CompletionRequest)
    assert includes_usage(request) is asked
    assert not includes_usage(requests.EmbeddingRequest(model="m", input="Hi"))


@pytest.mark.parametrize("options", [None, b"null", b"{}", b'{"include_usage":false}'])
def test_an_engine_is_always_asked(options: bytes | None) -> None:
    assert with_usage(msgspec.Raw(options) if options else None) == {"include_usage": True}


def test_other_stream_options_are_kept() -> None:
    assert with_usage(msgspec.Raw(b'{"x":1}')) == {"x": 1, "include_usage": True}


@pytest.mark.parametrize(
    ("events", "found", "response_id", "hidden"),
    [
        ([TEXT, ONLY_USAGE, DONE], 3, "b", [TEXT, DONE]),
        ([TEXT, DONE], None, None, [TEXT, DONE]),
        ([ONLY_USAGE, TEXT, BOTH], 2, "c", [TEXT, BOTH]),
        ([ONLY_USAGE, BOTH, ONLY_USAGE], 3, "b", [BOTH]),
        ([BOTH, NONSENSE, DONE], 2, "c", [BOTH, DONE]),
        ([NONSENSE], None, None, []),
        ([], None, None, []),
    ],
)
def test_the_last_valid_usage_is_read_and_chunks_of_usage_alone_are_hidden(
    events: list[bytes], found: int | None, response_id: str | None, hidden: list[bytes]
) -> None:
    whole = b"".join(events)
    counted = None if found is None else Usage(7, 0, found, 0)
    assert split_usage(whole, shows_usage=True) == (counted, response_id, whole)
    assert split_usage(whole, shows_usage=False) == (counted, response_id, b"".join(hidden))
