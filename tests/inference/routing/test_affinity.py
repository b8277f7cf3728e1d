"""A conversation keeps its key as it grows, and a long prompt costs what a short one costs."""

from typing import Any

import pytest
from tests.inference.making import CHAT, as_json

from quarterdeck.inference.routing.affinity import prefix_key, session_key
from quarterdeck.protocol import requests
from quarterdeck.settings.routes import RoutingConfig

SYSTEM = {"role": "system", "content": "You are a helpful pirate."}
ASKED = {"role": "user", "content": "How do I tie a bowline?"}
SAID = {"role": "assistant", "content": "The rabbit comes out of the hole {arr}."}
MORE = {"role": "user", "content": "And a sheet bend?"}


def key(messages: Any, *, length: int = 1024, body: bytes | None = None) -> int:
    return prefix_key(requests.members(body or as_json({"model": "m", "messages": messages})), length)


def test_a_conversation_keeps_its_key_as_it_grows() -> None:
    first = key([SYSTEM, ASKED])
    assert key([SYSTEM, ASKED, SAID, MORE]) == first
    assert key([SYSTEM, ASKED, SAID, MORE, SAID, MORE]) == first


def test_it_does_so_whatever_the_blanks_and_the_order_of_members() -> None:
    spaced = b'{"model": "m", "messages": [ {"role": "user", "content": "Hi"} ]}'
    grown = b'{"model": "m", "messages": [ {"role": "user", "content": "Hi"} , {"content": "A", "role": "assistant"} ]}'
    assert key(None, body=spaced) == key(None, body=grown)


def test_another_beginning_is_another_key() -> None:
    assert key([SYSTEM, ASKED]) != key([SYSTEM, MORE])
    assert key([ASKED]) != key([SYSTEM, ASKED])


def test_what_lies_beyond_the_prefix_does_not_count() -> None:
    long = {"role": "system", "content": "x" * 5000}
    assert key([long, ASKED]) == key([long, MORE])
    assert key([long, ASKED], length=8192) != key([long, MORE], length=8192)


@pytest.mark.parametrize("field", ["prompt", "input"])
def test_completions_and_embeddings_have_keys_as_well(field: str) -> None:
    def of(text: str) -> int:
        return prefix_key(requests.members(as_json({"model": "m", field: text})), 1024)

    assert of("one") == of("one") != of("other")


def test_a_request_without_a_prompt_has_a_key_too() -> None:
    assert prefix_key(requests.members(b'{"model":"m"}'), 1024) == 0


def asked(**fields: Any) -> requests.AnyRequest:
    found: requests.AnyRequest = requests.decode(as_json({**CHAT, **fields}), requests.ChatCompletionRequest)
    return found


def test_a_session_is_found_where_the_file_says() -> None:
    by_metadata, by_user = RoutingConfig(), RoutingConfig(session="user")
    by_header = RoutingConfig(session="header:x-session")
    one = session_key(by_metadata, asked(metadata={"session_id": "s1"}))
    assert one is not None
    assert one == session_key(by_user, asked(user="s1"))
    assert one == session_key(by_header, asked(), ((b"x-other", b"s2"), (b"x-session", b"s1")))
    assert one != session_key(by_metadata, asked(metadata={"session_id": "s2"}))


def test_a_request_of_no_session_has_no_key() -> None:
    assert session_key(RoutingConfig(), asked()) is None
    assert session_key(RoutingConfig(), asked(metadata={"session_id": 7})) is None
    assert session_key(RoutingConfig(session="user"), asked(user="")) is None
    assert session_key(RoutingConfig(session="header:x-session"), asked()) is None
