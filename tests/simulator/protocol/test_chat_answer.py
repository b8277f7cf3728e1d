from tests.simulator.harness import events, http, user

from quarterdeck.simulator import create_app


async def test_events_are_shaped_as_vllms() -> None:
    async with http(create_app()) as client:
        body = {"messages": user("hello"), "max_tokens": 3, "stream": True, "stream_options": {"include_usage": True}}
        answer = await client.post("/v1/chat/completions", json=body, headers={"x-request-id": "abc"})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.content.endswith(b"\n\ndata: [DONE]\n\n")
    head = b'data: {"id":"chatcmpl-abc","object":"chat.completion.chunk","created":'
    assert all(block.startswith(head) for block in answer.content.split(b"\n\n")[:-2])
    found = events(answer.content)
    opening = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    assert found[0]["choices"] == [opening]
    assert set(found[1]["choices"][0]) == {"index", "delta", "logprobs", "finish_reason", "token_ids"}
    assert found[3]["choices"][0]["finish_reason"] == "length"
    assert found[4]["choices"] == []
    assert found[4]["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
    assert found[5] == "[DONE]"


async def test_usage_comes_only_where_it_is_asked_for() -> None:
    async with http(create_app()) as client:
        answer = await client.post("/v1/chat/completions", json={"messages": user("hello"), "stream": True})
        each = {"include_usage": True, "continuous_usage_stats": True}
        continuous = await client.post(
            "/v1/chat/completions", json={"messages": user("hello"), "stream": True, "stream_options": each}
        )
    assert not any("usage" in event for event in events(answer.content)[:-1])
    counts = [event["usage"]["completion_tokens"] for event in events(continuous.content)[:-1]]
    assert counts == sorted(counts) and counts[0] == 0
