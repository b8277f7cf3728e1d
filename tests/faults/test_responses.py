"""Responses in the foreground while an engine, Redis, the database, their gateway or their client goes away."""

import threading
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from tests.faults.response_stack import PLAIN, SECONDS, ResponseStack, begun, text_of
from tests.servers import PostgresServer, wait_until

pytestmark = pytest.mark.long  # a platform of seven processes, some of which are started again

INTERRUPTED = "The gateway stopped before the response was complete."
LONG: Any = {**PLAIN, "max_output_tokens": 3000}
SHORT: Any = {**PLAIN, "max_output_tokens": 4}


@pytest.fixture
def stack(response_stack: ResponseStack) -> ResponseStack:
    return response_stack


def settled(stack: ResponseStack, response_id: str) -> Any:
    """The stored response when it has ended."""
    client, found = stack.client(), []

    def has_ended() -> bool:
        found[:] = [client.responses.retrieve(response_id)]
        return found[0].status != "in_progress"

    wait_until(has_ended, seconds=SECONDS, what=lambda: "the response is still in progress")
    return found[0]


# its gateway


def test_after_a_kill_it_is_incomplete_when_its_lease_has_ended(stack: ResponseStack) -> None:
    made = stack.client().responses.create(**LONG, stream=True)
    response_id, _ = begun(made)
    stack.end_gateway(is_killed=True)
    client = stack.client()
    assert client.responses.retrieve(response_id).status == "in_progress"
    stack.end_leases()
    found = client.responses.retrieve(response_id)
    assert (found.status, found.output) == ("incomplete", [])
    assert found.error is not None and found.error.message == INTERRUPTED
    again = list(client.responses.retrieve(response_id, stream=True))
    assert again[-1].type == "response.incomplete"
    asked = client.responses.create(**SHORT, previous_response_id=response_id)
    assert asked.previous_response_id == response_id


def test_after_a_shutdown_it_is_incomplete_with_what_was_said_and_charged_once(stack: ResponseStack) -> None:
    made = stack.client().responses.create(**LONG, stream=True)
    response_id, first = begun(made)
    stack.end_gateway(is_killed=False)
    with pytest.raises(openai.APIError, match="shutting down"):
        for event in made:
            first.append(event)
    found = settled(stack, response_id)
    assert found.status == "incomplete"
    assert found.error is not None and found.error.message == INTERRUPTED
    assert found.output_text == text_of(first)
    (record,) = stack.records(response_id, 1)
    assert record.status == "cancelled" and 0 < record.output_tokens < 3000


def test_at_a_shutdown_a_whole_response_is_a_503_and_charged_at_most_once(stack: ResponseStack) -> None:
    client = stack.client()
    before = len(stack.query("SELECT * FROM responses"))
    refused: list[Exception] = []

    def ask() -> None:
        try:
            client.responses.create(**LONG)
        except openai.APIError as error:
            refused.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until(lambda: stack.engine.running() == 1, seconds=SECONDS)
    stack.end_gateway(is_killed=False)
    asking.join(SECONDS)
    (error,) = refused
    assert isinstance(error, openai.InternalServerError) and error.code == "shutting_down"
    wait_until(stack.is_idle, seconds=SECONDS, what=lambda: "the engine still runs")
    assert len(stack.query("SELECT * FROM responses")) == before


# its engine


@pytest.mark.parametrize("store", [True, False], ids=["stored", "unstored"])
def test_an_engine_that_dies_in_mid_stream_is_replaced_by_another(stack: ResponseStack, *, store: bool) -> None:
    client = stack.client()
    asked: Any = {**PLAIN, "model": "pair", "store": store}
    whole = client.responses.create(**asked)
    made = client.responses.create(**asked, stream=True)
    response_id, first = begun(made)
    busy = stack.engine if stack.engine.running() else stack.spare
    busy.kill()
    events = first + list(made)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    response = events[-1].response
    assert response.output_text == text_of(events)
    assert whole.output_text.startswith(response.output_text)  # a token may be two when it is read again
    assert len(response.output_text) > 0.9 * len(whole.output_text)
    (record,) = stack.records(response_id, 1)
    assert (record.status, record.resumed, record.output_tokens) == ("ok", 1, response.usage.output_tokens)


@pytest.mark.parametrize("store", [True, False], ids=["stored", "unstored"])
def test_without_another_engine_it_is_a_failed_response_with_what_was_said(
    stack: ResponseStack, *, store: bool
) -> None:
    client = stack.client()
    made = client.responses.create(**LONG, stream=True, store=store)
    response_id, first = begun(made)
    stack.engine.kill()
    with pytest.raises(openai.APIError):
        for event in made:
            first.append(event)
    if store:
        failed = settled(stack, response_id)
        assert failed.status == "failed"
        assert failed.error is not None and failed.error.code == "server_error"
        assert failed.output_text == text_of(first)
        events = []
        with pytest.raises(openai.APIError):  # its events again, with the error
            for event in client.responses.retrieve(response_id, stream=True):
                events.append(event)
        assert events == first
    (record,) = stack.records(response_id, 1)
    assert record.status == "error"
    with pytest.raises(openai.InternalServerError) as refused:
        client.responses.create(**SHORT, store=store)
    assert refused.value.status_code in (502, 503)


# Redis


@pytest.mark.parametrize("store", [True, False], ids=["stored", "unstored"])
def test_redis_may_die_while_it_is_streamed_and_be_away_for_the_next(stack: ResponseStack, *, store: bool) -> None:
    client = stack.client()
    made = client.responses.create(**PLAIN, stream=True, store=store)
    response_id, first = begun(made)
    stack.redis.kill()
    events = first + list(made)
    assert events[-1].response.output_text == text_of(events)
    short = client.responses.create(**SHORT, store=store)
    conversation = client.conversations.create()
    added = client.responses.create(**SHORT, conversation=conversation.id, store=store)
    assert len(client.conversations.items.list(conversation.id).data) == 2
    stack.redis.start()
    for id, tokens in ((response_id, 300), (short.id, 4), (added.id, 4)):
        (record,) = stack.records(id, 1)
        assert (record.status, record.output_tokens) == ("ok", tokens)


# its client


def test_a_client_that_leaves_a_stream_stops_the_engine_and_leaves_what_was_said(stack: ResponseStack) -> None:
    conversation = stack.client().conversations.create()
    made = stack.client().responses.create(**LONG, stream=True, conversation=conversation.id)
    response_id, first = begun(made)
    made.close()
    wait_until(stack.is_idle, seconds=SECONDS, what=lambda: "the engine still runs")
    found = settled(stack, response_id)
    assert found.status == "cancelled"
    assert found.output_text.startswith(text_of(first))
    (record,) = stack.records(response_id, 1)
    assert record.status == "cancelled"
    # Its conversation is free again, and has nothing of it.
    wait_until(lambda: not stack.query("SELECT * FROM conversations WHERE locked_by IS NOT NULL"), seconds=SECONDS)
    assert stack.client().conversations.items.list(conversation.id).data == []


def test_a_client_that_leaves_a_whole_response_stops_the_engine_and_stores_nothing(stack: ResponseStack) -> None:
    before = len(stack.query("SELECT * FROM responses"))
    with pytest.raises(openai.APITimeoutError):
        stack.client().responses.create(**LONG, timeout=1.0)
    wait_until(stack.is_idle, seconds=SECONDS, what=lambda: "the engine still runs")
    assert len(stack.query("SELECT * FROM responses")) == before


# the database

on_postgres = pytest.mark.parametrize("session_response_stack", ["postgres"], indirect=True)
"""A SQLite file is no server that stops."""


@pytest.fixture
def without_database(stack: ResponseStack, request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """The PostgreSQL of the stack, which the test stops; it is started afterwards."""
    server: PostgresServer = request.getfixturevalue("postgres_server")
    yield server
    if server.process is None:
        server.start()
    client = stack.client()
    wait_until(lambda: answers(client), seconds=SECONDS, what=lambda: "the database is not back")


def takes_responses(client: openai.OpenAI) -> bool:
    try:
        client.responses.create(**SHORT)
    except openai.InternalServerError:
        return False
    return True


def answers(client: openai.OpenAI) -> bool:
    try:
        client.conversations.create()
    except openai.InternalServerError:
        return False
    return True


@on_postgres
def test_without_a_database_what_is_stateful_is_503_and_what_is_not_goes_on(
    stack: ResponseStack, without_database: PostgresServer
) -> None:
    client = stack.client()
    made = client.responses.create(**SHORT)
    conversation = client.conversations.create()
    without_database.stop()
    # A recent answer of the database counts for a while.
    wait_until(lambda: not takes_responses(client), seconds=SECONDS, what=lambda: "it is not noticed")
    asks: list[Any] = [
        lambda: client.responses.create(**SHORT),
        lambda: client.responses.create(**SHORT, stream=True),
        lambda: client.responses.create(**SHORT, background=True),
        lambda: client.responses.create(**SHORT, store=False, previous_response_id=made.id),
        lambda: client.responses.create(**SHORT, store=False, conversation=conversation.id),
        lambda: client.responses.retrieve(made.id),
        lambda: client.responses.retrieve(made.id, stream=True),
        lambda: client.responses.delete(made.id),
        lambda: client.responses.cancel(made.id),
        lambda: client.responses.input_items.list(made.id),
        lambda: client.responses.compact(model="chat", previous_response_id=made.id),
        lambda: client.responses.input_tokens.count(model="chat", previous_response_id=made.id),
        lambda: client.conversations.create(),
        lambda: client.conversations.retrieve(conversation.id),
        lambda: client.conversations.update(conversation.id, metadata={}),
        lambda: client.conversations.delete(conversation.id),
        lambda: client.conversations.items.list(conversation.id),
        lambda: client.conversations.items.create(conversation.id, items=[{"role": "user", "content": "x"}]),
        lambda: client.chat.completions.list(),
        lambda: client.chat.completions.create(
            model="chat", messages=[{"role": "user", "content": "x"}], max_tokens=4, store=True
        ),
    ]
    for number, ask in enumerate(asks):
        with pytest.raises(openai.InternalServerError) as refused:
            ask()
        assert (refused.value.status_code, refused.value.code) == (503, "database_unavailable"), number
    assert client.responses.create(**SHORT, store=False).status == "incomplete"
    events = list(client.responses.create(**SHORT, store=False, stream=True))
    assert events[-1].type == "response.incomplete"
    assert client.responses.input_tokens.count(model="chat", input="Hi").input_tokens > 0


@on_postgres
def test_a_stream_that_ends_without_a_database_is_stored_when_it_is_back(
    stack: ResponseStack, without_database: PostgresServer
) -> None:
    made = stack.client().responses.create(**PLAIN, stream=True)
    response_id, first = begun(made)
    without_database.stop()
    events = first + list(made)
    assert events[-1].response.output_text == text_of(events)
    without_database.start()
    found = settled(stack, response_id)
    assert found == events[-1].response


@on_postgres
def test_a_background_response_that_ends_without_a_database_is_stored_when_it_is_back(
    stack: ResponseStack, without_database: PostgresServer
) -> None:
    made = stack.client().responses.create(**PLAIN, background=True)
    wait_until(lambda: stack.engine.running() == 1, seconds=SECONDS, what=lambda: "the engine does not run")
    without_database.stop()
    wait_until(stack.is_idle, seconds=SECONDS, what=lambda: "the engine still runs")
    without_database.start()
    found = stack.ended(made.id)
    assert (found.status, found.usage.output_tokens) == ("incomplete", 300)
    (record,) = stack.records(made.id, 1)
    assert (record.status, record.output_tokens) == ("ok", 300)
