"""Responses and conversations under the official SDK with strict validation, and under OpenResponses' models."""

import itertools
import json
import random
from typing import Any

import httpx
import openai
import openresponses_types as oresp
import pytest
from pydantic import TypeAdapter
from tests.contract.platform import ADMIN, NARROW, USER, Platform
from tests.servers import wait_until

ASK: Any = {"model": "chat", "input": "Say something about ships.", "max_output_tokens": 512}
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
EVENTS: list[Any] = [
    made for name, made in vars(oresp).items() if isinstance(made, type) and name.endswith("StreamingEvent")
]


def accept(body: dict[str, Any]) -> None:
    """By OpenResponses' model of a response. Its generated model takes no schema but null."""
    form = body["text"]["format"]
    if form["type"] == "json_schema":
        body = {**body, "text": {**body["text"], "format": {**form, "schema": None}}}
    oresp.ResponseResource.model_validate(body)


def test_a_response_is_typed_and_counted(client: openai.OpenAI, platform: Platform) -> None:
    answer = client.responses.create(**ASK)
    assert answer.status == "completed"
    assert answer.output_text
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert answer._request_id is not None
    record = platform.record(answer._request_id)
    assert (record.parent, record.operation, record.status) == (answer.id, "chat", "ok")
    assert (record.input_tokens, record.output_tokens) == (answer.usage.input_tokens, answer.usage.output_tokens)
    assert record.cost > 0


def test_a_stream_ends_with_the_response_that_is_stored_and_can_be_streamed_again(client: openai.OpenAI) -> None:
    plain = client.responses.create(**ASK)
    with client.responses.create(**ASK, stream=True) as stream:
        events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == plain.output_text
    assert last.response.usage == plain.usage
    stored = client.responses.retrieve(last.response.id)
    assert stored == last.response
    assert list(client.responses.retrieve(stored.id, stream=True)) == events
    assert list(client.responses.retrieve(stored.id, stream=True, starting_after=3)) == events[4:]


def test_the_sdks_own_stream_helper_accumulates(client: openai.OpenAI) -> None:
    with client.responses.stream(**ASK) as stream:
        final = stream.get_final_response()
    assert final.output_text


def test_every_default_is_there(platform: Platform) -> None:
    body = post(platform, ASK)
    accept(body)
    assert body["tools"] == []
    assert (body["tool_choice"], body["truncation"], body["service_tier"]) == ("auto", "disabled", "default")
    assert body["text"] == {"format": {"type": "text"}, "verbosity": "medium"}
    assert (body["parallel_tool_calls"], body["store"], body["background"], body["metadata"]) == (True, True, False, {})


INPUTS: dict[str, Any] = {
    "text": "Hello",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
    "parts": [{"role": "user", "content": [{"type": "input_text", "text": "Hello"}]}],
    "calls": [
        {"role": "user", "content": "Weather?"},
        {"type": "reasoning", "id": "rs_x", "summary": []},
        {"type": "function_call", "call_id": "call_x", "name": "weather", "arguments": '{"city": "Oslo"}'},
        {"type": "function_call_output", "call_id": "call_x", "output": "Cold."},
    ],
}
OPTIONS: dict[str, Any] = {
    "plain": {},
    "function": {"tools": [WEATHER]},
    "forced": {"tools": [WEATHER], "tool_choice": "required"},
    "named": {"tools": [WEATHER], "tool_choice": {"type": "function", "name": "weather"}},
    "schema": {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}}},
    "object": {"text": {"format": {"type": "json_object"}}},
    "logprobs": {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
    "cut": {"max_output_tokens": 1},
    "reasoning": {"reasoning": {"effort": "low"}, "instructions": "Think.", "metadata": {"a": "b"}},
}


@pytest.mark.parametrize("store", [True, False], ids=["stored", "unstored"])
@pytest.mark.parametrize("option", OPTIONS)
def test_bodies_and_events_are_valid(platform: Platform, option: str, *, store: bool) -> None:
    for name, given in INPUTS.items():
        if option == "object" and name == "calls":
            continue
        asked = {"model": "chat", "input": given, "max_output_tokens": 64, "store": store, **OPTIONS[option]}
        accept(post(platform, asked))
        events = stream(platform, asked)
        assert events[-1]["type"] in ("response.completed", "response.incomplete")
        accept(events[-1]["response"])
        for event in events:
            check_event(event)


def check_event(event: dict[str, Any]) -> None:
    if "response" in event:
        accept(event["response"])
        return
    if event["type"].startswith("response.reasoning_text"):
        return  # OpenResponses calls these events `response.reasoning`, the SDK as we do
    (found,) = [made for made in EVENTS if _accepts_type(made, event["type"])]
    found.model_validate(event)


def _accepts_type(made: Any, kind: str) -> bool:
    try:
        TypeAdapter(made.model_fields["type"].annotation).validate_python(kind)
    except ValueError:
        return False
    return True


def test_a_forced_call_is_answered_and_continued(client: openai.OpenAI) -> None:
    asked = client.responses.create(
        model="chat", input="Weather in Oslo?", tools=[WEATHER], tool_choice="required", max_output_tokens=512
    )
    (call,) = [item for item in asked.output if item.type == "function_call"]
    json.loads(call.arguments)
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "3 °C"}
    answered = client.responses.create(
        model="chat", input=[output], previous_response_id=asked.id, tools=[WEATHER], max_output_tokens=512
    )
    assert answered.previous_response_id == asked.id
    assert answered.output_text
    # The same without state, as clients do that send back what they got.
    again: Any = [{"role": "user", "content": "Weather in Oslo?"}, *(i.model_dump() for i in asked.output), output]
    alone = client.responses.create(model="chat", input=again, tools=[WEATHER], store=False, max_output_tokens=512)
    assert alone.usage is not None
    assert answered.usage is not None
    assert alone.usage.input_tokens == answered.usage.input_tokens


def test_several_functions_are_called_in_one_turn_unless_parallel_calls_are_off(client: openai.OpenAI) -> None:
    ask: Any = {
        "model": "chat",
        "input": "Ask the weather, then the stock, then the weather again.",
        "tools": [WEATHER, {**WEATHER, "name": "stock"}],
        "max_output_tokens": 1024,
    }
    asked = client.responses.create(**ask)
    calls = [item for item in asked.output if item.type == "function_call"]
    assert [call.name for call in calls] == ["weather", "stock", "weather"]
    assert len({call.call_id for call in calls}) == len({call.id for call in calls}) == 3
    assert all("city" in json.loads(call.arguments) for call in calls)
    with client.responses.create(**ask, stream=True) as stream:
        events = list(stream)
    done = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert [event.arguments for event in done] == [call.arguments for call in calls]
    assert [event.output_index for event in done] == [0, 1, 2]
    one = client.responses.create(**ask, parallel_tool_calls=False)
    assert [(item.type, getattr(item, "name", "")) for item in one.output] == [("function_call", "weather")]
    outputs: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "ok"} for call in calls]
    answered = client.responses.create(
        model="chat", input=outputs, previous_response_id=asked.id, tools=ask["tools"], max_output_tokens=512
    )
    assert answered.output_text


def test_three_turns_by_previous_response_id(client: openai.OpenAI) -> None:
    first = client.responses.create(**ASK, instructions="Be brief.")
    second = client.responses.create(model="chat", input="And boats?", previous_response_id=first.id)
    third = client.responses.create(model="chat", input="And rafts?", previous_response_id=second.id)
    counts = [each.usage.input_tokens for each in (first, second, third) if each.usage is not None]
    assert counts == sorted(counts)
    items = client.responses.input_items.list(third.id).data
    assert [item.content[0].text for item in items if item.type == "message"] == ["And rafts?"]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.create(model="chat", input="More", previous_response_id=third.id)
    assert caught.value.code == "previous_response_not_found"


def test_items_can_be_referred_to(client: openai.OpenAI) -> None:
    first = client.responses.create(**ASK)
    reference: Any = {"type": "item_reference", "id": first.output[0].id}
    again = client.responses.create(model="chat", input=[reference, {"role": "user", "content": "Go on."}])
    assert again.output_text
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="chat", input=[{"type": "item_reference", "id": "msg_nothing"}])


def test_a_conversation_grows_with_its_responses(client: openai.OpenAI) -> None:
    conversation = client.conversations.create(
        metadata={"topic": "ships"}, items=[{"type": "message", "role": "user", "content": "I like ships."}]
    )
    assert client.conversations.retrieve(conversation.id) == conversation
    answer = client.responses.create(**ASK, conversation=conversation.id)
    assert answer.conversation is not None
    assert answer.conversation.id == conversation.id
    with client.responses.create(model="chat", input="More", conversation={"id": conversation.id}, stream=True) as made:
        list(made)
    items = list(client.conversations.items.list(conversation.id, order="asc", limit=2))
    assert [getattr(item, "role", None) for item in items] == ["user", "user", "assistant", "user", "assistant"]
    added = client.conversations.items.create(
        conversation.id, items=[{"type": "message", "role": "user", "content": "Thanks."}]
    )
    item = client.conversations.items.retrieve(added.data[0].id, conversation_id=conversation.id)
    assert item == added.data[0]
    assert client.conversations.items.delete(item.id or "", conversation_id=conversation.id).id == conversation.id
    assert client.conversations.update(conversation.id, metadata={"topic": "boats"}).metadata == {"topic": "boats"}
    assert client.conversations.delete(conversation.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.responses.create(**ASK, conversation=conversation.id)
    assert client.responses.retrieve(answer.id).id == answer.id


def test_an_unstored_response_is_not_found_again(client: openai.OpenAI) -> None:
    answer = client.responses.create(**ASK, store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(answer.id)


def test_a_deleted_response_is_gone(client: openai.OpenAI) -> None:
    answer = client.responses.create(**ASK)
    assert client.responses.delete(answer.id) is None
    for gone in (client.responses.retrieve, client.responses.delete, client.responses.cancel):
        with pytest.raises(openai.NotFoundError):
            gone(answer.id)


def test_a_response_that_is_not_in_the_background_cannot_be_cancelled(client: openai.OpenAI) -> None:
    answer = client.responses.create(**ASK)
    with pytest.raises(openai.BadRequestError, match="synchronous"):
        client.responses.cancel(answer.id)


def test_input_tokens_are_those_of_the_response(client: openai.OpenAI) -> None:
    asked: Any = {"model": "chat", "input": "Say something about ships.", "instructions": "Be brief."}
    counted = client.responses.input_tokens.count(**asked)
    answer = client.responses.create(**asked, store=False)
    assert answer.usage is not None
    assert counted.input_tokens == answer.usage.input_tokens


def test_the_platforms_errors_are_the_sdks(client: openai.OpenAI, platform: Platform) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.responses.create(model="nothing", input="Hi")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as background:
        client.responses.create(**ASK, background=True, store=False)
    assert background.value.param == "background"
    with platform.client(NARROW) as narrow, pytest.raises(openai.NotFoundError):
        narrow.responses.create(**ASK)
    with platform.client("sk-qd-nobody") as nobody, pytest.raises(openai.AuthenticationError):
        nobody.responses.create(**ASK)
    with pytest.raises(openai.BadRequestError) as empty:
        client.responses.create(model="chat")
    assert empty.value.param == "input"


def test_a_failing_engine_is_an_exception_and_a_failed_response(client: openai.OpenAI) -> None:
    fault = {"x-fault": "error=3"}
    made = client.responses.create(**ASK, stream=True, extra_headers=fault)
    created = next(iter(made))
    assert created.type == "response.created"
    with pytest.raises(openai.APIError):
        list(made)

    def has_failed() -> bool:
        return client.responses.retrieve(created.response.id).status == "failed"

    wait_until(has_failed, seconds=5, what=lambda: "no failed response")
    failed = client.responses.retrieve(created.response.id)
    assert failed.error is not None
    assert failed.error.code == "server_error"


def test_a_client_that_hangs_up_leaves_a_cancelled_response(client: openai.OpenAI) -> None:
    made = client.responses.create(
        model="chat", input="Count.", max_output_tokens=2000, stream=True, extra_body={"ignore_eos": True}
    )
    created = next(iter(made))
    assert created.type == "response.created"
    made.close()

    def is_cancelled() -> bool:
        return client.responses.retrieve(created.response.id).status == "cancelled"

    wait_until(is_cancelled, seconds=10, what=lambda: "the response is not cancelled")


def test_a_conversation_that_is_too_long_is_truncated_where_that_is_asked_for(client: openai.OpenAI) -> None:
    turns: Any = [{"role": "user", "content": "ships " * 600} for _ in range(20)]
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="chat", input=turns, max_output_tokens=8)
    assert caught.value.code == "context_length_exceeded"
    answer = client.responses.create(model="chat", input=turns, max_output_tokens=8, truncation="auto")
    assert answer.truncation == "auto"
    assert answer.usage is not None
    assert answer.usage.input_tokens <= 4096


def test_a_cached_answer_is_a_response_of_its_own(client: openai.OpenAI) -> None:
    asked: Any = {**ASK, "temperature": 0}
    first, second = client.responses.create(**asked), client.responses.create(**asked)
    assert first.id != second.id
    assert first.output[0].id != second.output[0].id
    assert first.output_text == second.output_text


def test_no_object_of_another_team_or_organisation_is_readable(platform: Platform) -> None:
    """Random requests of strangers for objects that exist: 404, as for objects that don't."""
    with platform.client(USER) as mine:
        response = mine.responses.create(**ASK)
        conversation = mine.conversations.create(items=[{"type": "message", "role": "user", "content": "secret"}])
        item = mine.conversations.items.list(conversation.id).data[0].id
    strangers = [a_stranger(platform, org=None, team="blue"), a_stranger(platform, org="acme", team=None)]
    paths = [
        ("GET", f"responses/{response.id}"),
        ("GET", f"responses/{response.id}?stream=true"),
        ("DELETE", f"responses/{response.id}"),
        ("POST", f"responses/{response.id}/cancel"),
        ("GET", f"responses/{response.id}/input_items"),
        ("GET", f"conversations/{conversation.id}"),
        ("DELETE", f"conversations/{conversation.id}"),
        ("GET", f"conversations/{conversation.id}/items"),
        ("GET", f"conversations/{conversation.id}/items/{item}"),
        ("DELETE", f"conversations/{conversation.id}/items/{item}"),
    ]
    bodies: list[dict[str, Any]] = [
        {"previous_response_id": response.id},
        {"conversation": conversation.id},
        {"input": [{"type": "item_reference", "id": item}]},
        {"input": [{"type": "item_reference", "id": response.output[0].id}]},
    ]
    chosen = random.Random(7)  # which requests are sent, and the same ones each time
    with httpx.Client(base_url=platform.base_url, timeout=20) as http:
        for _ in range(120):
            key = chosen.choice(strangers)
            if chosen.random() < 0.7:
                method, path = chosen.choice(paths)
                answer = http.request(method, path, headers={"authorization": f"Bearer {key}"})
            else:
                body = {"model": "chat", "input": "Hi", **chosen.choice(bodies)}
                answer = http.post("responses", json=body, headers={"authorization": f"Bearer {key}"})
            assert answer.status_code == 404, answer.text
            assert "secret" not in answer.text
    with platform.client(USER) as mine:
        assert mine.responses.retrieve(response.id) == response
        assert mine.conversations.items.retrieve(item or "", conversation_id=conversation.id)


_names = itertools.count()


def a_stranger(platform: Platform, *, org: str | None, team: str | None) -> str:
    """A key of another organisation or team."""
    body: dict[str, Any] = {"name": f"stranger-{next(_names)}"}
    with httpx.Client(base_url=platform.gateway.url, headers={"authorization": f"Bearer {ADMIN}"}) as http:
        if org is not None:
            http.post("/admin/organizations", json={"id": org})
            body["org"] = org
        if team is not None:
            http.post("/admin/teams", json={"id": team})
            body["team"] = team
        made = http.post("/admin/keys", json=body)
        assert made.status_code in (200, 201), made.text
        return str(made.json()["key"])


def post(platform: Platform, body: dict[str, Any]) -> dict[str, Any]:
    answer = httpx.post(
        f"{platform.base_url}/responses", json=body, headers={"authorization": f"Bearer {USER}"}, timeout=20
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def stream(platform: Platform, body: dict[str, Any]) -> list[dict[str, Any]]:
    answer = httpx.post(
        f"{platform.base_url}/responses",
        json={**body, "stream": True},
        headers={"authorization": f"Bearer {USER}"},
        timeout=20,
    )
    assert answer.headers["content-type"].startswith("text/event-stream"), answer.text
    return [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")]
