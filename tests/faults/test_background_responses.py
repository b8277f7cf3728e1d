"""Background responses survive the processes that execute them, are charged once, and stop when they are cancelled."""

from typing import Any

import openai
import pytest
from tests.faults.response_stack import ASK, PLAIN, SECONDS, ResponseStack, begun, text_of
from tests.servers import wait_until

pytestmark = pytest.mark.long  # a platform of seven processes, some of which are started again


@pytest.fixture
def stack(response_stack: ResponseStack) -> ResponseStack:
    return response_stack


def whole_text(stack: ResponseStack, model: str = "chat") -> str:
    """What the engine says to ASK where nothing happens."""
    return stack.client().responses.create(**{**PLAIN, "model": model}).output_text


def check_numbers(events: list[Any]) -> None:
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_a_response_is_queued_at_once_and_completes_without_its_client(stack: ResponseStack) -> None:
    client = stack.client()
    made = client.responses.create(**{**ASK, "max_output_tokens": 20}, metadata={"a": "b"})
    assert (made.status, made.background, made.output) == ("queued", True, [])
    found = stack.ended(made.id)
    assert (found.status, found.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert (found.id, found.metadata, found.output_text != "") == (made.id, {"a": "b"}, True)
    (record,) = stack.records(made.id, 1)
    assert (record.output_tokens, record.status) == (found.usage.output_tokens, "ok")
    items = client.responses.input_items.list(made.id)
    assert [item.type for item in items] == ["message"]
    again = client.responses.create(model="chat", input="And?", previous_response_id=made.id, max_output_tokens=4)
    assert again.status == "incomplete"


def test_its_events_are_followed_from_any_gateway_and_from_any_number(stack: ResponseStack) -> None:
    made = stack.client().responses.create(**{**ASK, "max_output_tokens": 60}, stream=True)
    response_id, first = begun(made)
    made.close()
    after = first[-1].sequence_number
    rest = list(stack.client(stack.other).responses.retrieve(response_id, stream=True, starting_after=after))
    events = first + rest
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert kinds[-1] == "response.incomplete"
    assert events[-1].response.output_text == text_of(events)
    assert list(stack.client().responses.retrieve(response_id, stream=True)) == events


def test_a_cancelled_response_stops_its_engine_and_stays_cancelled(stack: ResponseStack) -> None:
    client = stack.client(stack.other)
    made = stack.client().responses.create(**{**ASK, "max_output_tokens": 3000}, stream=True)
    response_id, first = begun(made)
    cancelled = client.responses.cancel(response_id)
    assert cancelled.status == "cancelled"
    wait_until(lambda: stack.is_idle(), seconds=SECONDS, what=lambda: "the engine still runs")
    events = first + list(made)
    assert events[-1].response.status == "cancelled"
    assert client.responses.cancel(response_id) == cancelled
    assert client.responses.retrieve(response_id) == cancelled
    assert list(client.responses.retrieve(response_id, stream=True)) == events


def test_a_queued_response_is_cancelled_before_it_runs(stack: ResponseStack) -> None:
    stack.kill_worker()
    try:
        made = stack.client().responses.create(**ASK)
        assert stack.client().responses.cancel(made.id).status == "cancelled"
    finally:
        stack.worker = stack.start_worker()
    after = stack.client().responses.create(**{**ASK, "max_output_tokens": 5})
    stack.ended(after.id)
    assert stack.client().responses.retrieve(made.id).status == "cancelled"


def test_a_deleted_response_stops_its_engine(stack: ResponseStack) -> None:
    made = stack.client().responses.create(**{**ASK, "max_output_tokens": 3000}, stream=True)
    response_id, _ = begun(made)
    stack.client(stack.other).responses.delete(response_id)
    wait_until(lambda: stack.is_idle(), seconds=SECONDS, what=lambda: "the engine still runs")
    with pytest.raises(openai.APIError):
        list(made)
    with pytest.raises(openai.NotFoundError):
        stack.client().responses.retrieve(response_id)


def test_what_cannot_be_cancelled_or_queued_is_refused(stack: ResponseStack) -> None:
    client = stack.client()
    plain = client.responses.create(model="chat", input="Hi", max_output_tokens=4)
    with pytest.raises(openai.BadRequestError, match="synchronous"):
        client.responses.cancel(plain.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.cancel("resp_" + "0" * 24)
    with pytest.raises(openai.BadRequestError, match="store"):
        client.responses.create(**ASK, store=False)


def test_a_request_that_no_engine_takes_is_a_failed_response(stack: ResponseStack) -> None:
    made = stack.client().responses.create(model="unknown", input="Hi", background=True)
    found = stack.ended(made.id)
    assert found.status == "failed"
    assert "unknown" in found.error.message


def test_after_a_kill_of_its_worker_it_goes_on_and_is_charged_once(stack: ResponseStack) -> None:
    made = stack.client().responses.create(**ASK, stream=True)
    response_id, first = begun(made)
    stack.kill_worker()
    events = first + list(made)
    assert events[-1].response.output_text == text_of(events)
    stack.worker = stack.start_worker()
    stack.end_leases()
    (record,) = stack.records(response_id, 1)
    assert record.output_tokens == events[-1].response.usage.output_tokens == 300


@pytest.mark.parametrize("is_killed", [True, False], ids=["kill", "shutdown"])
def test_after_the_end_of_its_gateway_its_text_goes_on_and_is_charged_once(
    stack: ResponseStack, *, is_killed: bool
) -> None:
    whole = whole_text(stack)
    client = stack.client(stack.other)
    made = client.responses.create(**ASK, stream=True)
    response_id, first = begun(made, 20)
    stack.end_gateway(is_killed=is_killed)
    if is_killed:
        stack.end_leases()
    events = first + list(made)
    check_numbers(events)
    last = events[-1]
    assert last.type == "response.incomplete"
    assert last.response.output_text == text_of(events)
    said = text_of(first)
    assert last.response.output_text.startswith(said)
    assert whole.startswith(said)
    assert list(client.responses.retrieve(response_id, stream=True)) == events
    (record,) = stack.records(response_id, 1)
    assert (record.status, record.output_tokens) == ("ok", last.response.usage.output_tokens)
    assert record.output_tokens < 300  # the text that was shown is not made again


@pytest.mark.parametrize("is_killed", [True, False], ids=["kill", "shutdown"])
def test_after_the_end_of_its_gateway_one_that_is_not_streamed_begins_again(
    stack: ResponseStack, *, is_killed: bool
) -> None:
    made = stack.client(stack.other).responses.create(**ASK)
    wait_until(lambda: stack.engine.running() == 1, seconds=SECONDS, what=lambda: "the engine does not run")
    stack.end_gateway(is_killed=is_killed)
    if is_killed:
        stack.end_leases()
    found = stack.ended(made.id)
    assert found.usage.output_tokens == 300
    (record,) = stack.records(made.id, 1)
    assert (record.output_tokens, record.status) == (300, "ok")


def test_a_cancelled_response_is_charged_for_what_it_has_said_once(stack: ResponseStack) -> None:
    made = stack.client().responses.create(**{**ASK, "max_output_tokens": 3000}, stream=True)
    response_id, _ = begun(made)
    stack.client(stack.other).responses.cancel(response_id)
    made.close()
    (record,) = stack.records(response_id, 1)
    assert record.status == "cancelled" and 0 < record.output_tokens < 3000


def test_an_engine_that_dies_is_replaced_by_another_that_goes_on_with_the_text(stack: ResponseStack) -> None:
    whole = whole_text(stack, "pair")
    client = stack.client()
    made = client.responses.create(**{**ASK, "model": "pair"}, stream=True)
    response_id, first = begun(made)
    busy = stack.engine if stack.engine.running() else stack.spare
    busy.kill()
    events = first + list(made)
    check_numbers(events)
    response = events[-1].response
    assert response.output_text == text_of(events)
    assert whole.startswith(response.output_text)  # a token may be two when it is read again: the limit is met earlier
    assert len(response.output_text) > 0.9 * len(whole)
    (record,) = stack.records(response_id, 1)
    assert (record.status, record.resumed, record.output_tokens) == ("ok", 1, response.usage.output_tokens)


def test_while_its_only_engine_is_away_it_waits_and_goes_on_with_its_text(stack: ResponseStack) -> None:
    whole = whole_text(stack)
    made = stack.client().responses.create(**ASK, stream=True)
    response_id, first = begun(made)
    stack.engine.kill()
    wait_until(lambda: len(calls_of(stack, response_id)) > 0, seconds=SECONDS)
    stack.engine.start()
    events = first + list(made)
    check_numbers(events)
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.output_text == text_of(events)
    assert text_of(events).startswith(text_of(first))
    assert len(text_of(events)) < 1.2 * len(whole)  # what was shown is not said again
    wait_until(lambda: "ok" in {row.status for row in calls_of(stack, response_id)}, seconds=SECONDS)
    paid = [row.status for row in calls_of(stack, response_id) if row.output_tokens]
    assert sorted(paid) == ["error", "ok"]  # what was shown, and the rest


def calls_of(stack: ResponseStack, response_id: str) -> list[Any]:
    return list(stack.query("SELECT * FROM ledger WHERE parent = :id", id=response_id))


def test_redis_may_die_while_it_runs(stack: ResponseStack) -> None:
    made = stack.client().responses.create(**ASK, stream=True)
    response_id, first = begun(made)
    stack.redis.kill()
    events = first + list(made)
    check_numbers(events)
    assert events[-1].response.output_text == text_of(events)
    stack.redis.start()
    (record,) = stack.records(response_id, 1)
    assert (record.status, record.output_tokens) == ("ok", 300)


def test_one_that_is_queued_without_redis_is_executed(stack: ResponseStack) -> None:
    stack.redis.kill()
    made = stack.client().responses.create(**{**ASK, "max_output_tokens": 5})
    assert stack.ended(made.id).usage.output_tokens == 5
    stack.redis.start()
    (record,) = stack.records(made.id, 1)
    assert (record.status, record.output_tokens) == ("ok", 5)


def test_a_follower_that_leaves_stops_nothing(stack: ResponseStack) -> None:
    made = stack.client().responses.create(**{**ASK, "max_output_tokens": 60}, stream=True)
    response_id, _ = begun(made, 1)
    made.close()
    assert stack.ended(response_id).usage.output_tokens == 60


def test_a_conversation_is_locked_while_a_response_is_made_in_it(stack: ResponseStack) -> None:
    client = stack.client()
    conversation = client.conversations.create()
    made = client.responses.create(**{**ASK, "max_output_tokens": 3000}, stream=True, conversation=conversation.id)
    response_id, _ = begun(made)
    asked: Any = {"model": "chat", "input": "Me too", "conversation": conversation.id, "max_output_tokens": 4}
    for more in ({}, {"stream": True}, {"background": True}):
        with pytest.raises(openai.ConflictError) as refused:
            stack.client(stack.other).responses.create(**asked, **more)
        assert refused.value.code == "conversation_locked"
    with pytest.raises(openai.ConflictError):
        client.conversations.items.create(conversation.id, items=[{"role": "user", "content": "x"}])
    client.responses.cancel(response_id)
    client.responses.create(**asked)
    items = list(client.conversations.items.list(conversation.id, order="asc"))
    assert [item.role for item in items if item.type == "message"] == ["user", "assistant"]


def test_a_gateway_that_dies_releases_the_conversations_of_its_responses(stack: ResponseStack) -> None:
    client = stack.client(stack.other)
    conversation = client.conversations.create()
    asked: Any = {"model": "chat", "input": "Hi", "conversation": conversation.id}
    made = stack.client().responses.create(
        **asked, stream=True, max_output_tokens=3000, extra_body={"ignore_eos": True}
    )
    begun(made)
    stack.end_gateway(is_killed=True)
    with pytest.raises(openai.ConflictError):
        client.responses.create(**asked, max_output_tokens=4)
    stack.change("UPDATE conversations SET locked_until = 1 WHERE locked_by IS NOT NULL")
    assert client.responses.create(**asked, max_output_tokens=4).output_text
