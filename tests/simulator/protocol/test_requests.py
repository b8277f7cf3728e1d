import pytest
from tests.simulator.harness import http, user

from quarterdeck.simulator import create_app

CHAT = {"messages": user("hello")}


@pytest.mark.parametrize("body", [b"", b"{", b'{"messages": "\xff"}', b"[]", b"null", b'{"a":' * 3000, b'"\\ud800"'])
async def test_a_body_that_is_no_request_is_a_400(body: bytes) -> None:
    async with http(create_app()) as client:
        answer = await client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "Bad Request"


async def test_numbers_in_strings_are_taken_as_pydantic_takes_them() -> None:
    async with http(create_app()) as client:
        answer = await client.post("/v1/chat/completions", json=CHAT | {"max_tokens": "3", "unheard_of": {"x": 1}})
    assert answer.json()["usage"]["completion_tokens"] == 3
