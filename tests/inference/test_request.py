"""A request as one value: bytes, members and parsed fields that agree."""

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletionMessage
from tests.inference.making import CHAT, a_request, as_json

from quarterdeck.errors import BadRequestError
from quarterdeck.inference.call import MEDIA, Operation
from quarterdeck.inference.request import TYPES, decode
from quarterdeck.protocol.requests import ChatCompletionRequest


def test_every_operation_has_a_type_but_those_of_audio_and_images() -> None:
    assert TYPES.keys() == set(Operation) - set(MEDIA)


def test_a_decoded_request_keeps_the_clients_bytes() -> None:
    body = b'{"model" : "m", "messages": [], "x" : 1.50}'
    request = decode(Operation.CHAT, body)
    assert request.body is body
    assert request.parsed == ChatCompletionRequest(model="m", messages=[])
    assert bytes(request.members["x"]) == b"1.50"


@pytest.mark.parametrize(
    ("asked", "is_streaming", "shows_usage"),
    [
        ({}, False, False),
        ({"stream": False}, False, False),
        ({"stream": True}, True, False),
        ({"stream": True, "stream_options": {"include_usage": True}}, True, True),
        ({"stream": True, "stream_options": {"include_usage": False}}, True, False),
    ],
)
def test_a_stream_and_its_usage_are_asked_for(asked: dict[str, Any], is_streaming: bool, shows_usage: bool) -> None:
    request = a_request(**asked)
    assert (request.is_streaming, request.shows_usage) == (is_streaming, shows_usage)


def test_a_byte_order_mark_is_skipped() -> None:
    request = decode(Operation.CHAT, b"\xef\xbb\xbf" + as_json({**CHAT, "user": None}))
    assert request.body == as_json(CHAT)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (as_json(CHAT).decode().encode("utf-16"), "UTF-16"),
        (as_json(CHAT).decode().encode("utf-16-le"), "UTF-16"),
        (as_json({**CHAT, "user": "é"}).decode().encode("latin-1"), "not valid UTF-8 (byte"),
        (b"", "empty"),
        (b" \r\n", "empty"),
        (b"\xef\xbb\xbf", "empty"),
    ],
)
def test_a_body_in_another_encoding_is_named_as_such(body: bytes, words: str) -> None:
    with pytest.raises(BadRequestError, match="We could not parse the JSON body") as caught:
        decode(Operation.CHAT, body)
    assert words in caught.value.message


@pytest.mark.parametrize("arguments", [{"a": 1}, None, 7, ["a"]])
def test_arguments_that_are_no_text_are_refused_at_their_place(arguments: Any) -> None:
    """vLLM names a place in a list that the request does not have."""
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}]
    with pytest.raises(BadRequestError) as caught:
        a_request(messages=[*CHAT["messages"], {"role": "assistant", "content": None, "tool_calls": calls}])
    assert caught.value.param == "messages[1].tool_calls[0].function.arguments"
    assert caught.value.code == "invalid_type"


def test_a_call_of_another_type_passes() -> None:
    calls = [{"id": "1", "type": "custom", "custom": {"name": "f", "input": "x"}}]
    assert a_request(messages=[{"role": "assistant", "content": None, "tool_calls": calls}])


def test_a_request_that_generates_nothing_does_not_stream() -> None:
    request = decode(Operation.EMBEDDINGS, as_json({"model": "m", "input": "a", "stream": True}))
    assert (request.is_streaming, request.shows_usage) == (False, False)


def test_a_rewritten_request_is_rewritten_in_all_its_parts() -> None:
    request = decode(Operation.CHAT, b'{"model":"m","messages":[ ],"x":1.50}')
    other = request.with_members({"messages": CHAT["messages"], "stream": True})
    assert other.body == b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"x":1.50,"stream":true}'
    assert decode(Operation.CHAT, other.body).parsed == other.parsed
    assert other.members.keys() == {"model", "messages", "x", "stream"}
    assert other.is_streaming
    assert not request.is_streaming


def test_a_rewritten_member_must_have_its_type() -> None:
    with pytest.raises(BadRequestError) as caught:
        a_request().with_members({"messages": "Hi"})
    assert (caught.value.param, caught.value.code) == ("messages", "invalid_type")


@pytest.mark.parametrize("body", [b"", b"{", b'{"model":"m"}', b'{"model":"m","model":"m","messages":[]}', b"\xff"])
def test_a_body_that_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequestError):
        decode(Operation.CHAT, body)


MESSAGE_FIELDS = ("name", "tool_calls", "tool_call_id", "function_call", "refusal", "audio", "annotations", "reasoning")


@pytest.mark.parametrize("field", [*MESSAGE_FIELDS, "reasoning_content"])
@pytest.mark.parametrize("operation", [Operation.CHAT, Operation.TOKENIZE])
def test_a_null_that_a_dumped_message_carries_is_dropped(operation: Operation, field: str) -> None:
    body = b'{"model": "m", "messages": [{"role": "user", "content": "a\\u0020b", "%b": null}]}' % field.encode()
    request = decode(operation, body)
    assert request.body == b'{"model":"m","messages":[{"role":"user","content":"a\\u0020b"}]}'


def test_an_object_of_the_sdk_as_it_is_dumped_is_taken() -> None:
    message = ChatCompletionMessage(role="assistant", content="Hi").model_dump()
    request = decode(Operation.CHAT, json.dumps({"model": "m", "messages": [message], "user": None}).encode())
    assert json.loads(request.body) == {"model": "m", "messages": [{"role": "assistant", "content": "Hi"}]}


def test_a_request_without_absent_members_keeps_its_bytes() -> None:
    body = b'{ "model": "m",  "messages": [ {"role": "user", "content": null} ], "stop": [] }'
    assert decode(Operation.CHAT, body).body is body


def test_what_is_wrong_beside_a_null_is_still_refused() -> None:
    body = b'{"model": "m", "messages": [{"role": "user", "name": null}, {"content": "x"}]}'
    with pytest.raises(BadRequestError) as caught:
        decode(Operation.CHAT, body)
    assert caught.value.param == "messages[1].role"
    with pytest.raises(BadRequestError) as caught:
        decode(Operation.CHAT, b'{"model": "m", "messages": [7, {"role": "user", "name": null}]}')
    assert caught.value.param == "messages[0]"


def test_null_for_what_is_required_is_refused() -> None:
    with pytest.raises(BadRequestError) as caught:
        decode(Operation.EMBEDDINGS, b'{"model": "m", "input": null}')
    assert (caught.value.param, caught.value.code) == ("input", "missing_required_parameter")


@pytest.mark.parametrize("operation", list(TYPES))
@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "chat", "tokens": [1], "messages": [{"\x80ole": "user", "content": null}]}',
        b'{"model": "chat", "prompt": "a", "messages": [{"role": "user", "\xff": null}]}',
        b'{"\x80": null, "model": "chat"}',
    ],
    ids=["a name in a message", "a null in a message", "a name"],
)
def test_names_that_are_no_utf8_are_refused_beside_nulls(operation: Operation, body: bytes) -> None:
    with pytest.raises(BadRequestError) as caught:
        decode(operation, body)
    assert caught.value.code == "invalid_json"
