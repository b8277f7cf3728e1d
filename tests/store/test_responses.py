"""Responses and conversations are found again by their team, and by no other."""

import time
from dataclasses import replace
from typing import Any

import pytest

from quarterdeck.errors import BadRequestError, NotFoundError
from quarterdeck.store import stored_items
from quarterdeck.store.conversations import ConversationStore
from quarterdeck.store.database import Database
from quarterdeck.store.ownership import Origin, Owner, storable
from quarterdeck.store.responses import NewResponse, ResponseStore

TEAM = Owner("default", "red", "key_1")
OTHERS = [Owner("default", "blue", "key_2"), Owner("acme", "red", "key_3")]


def an_item(id: str, text: str = "Hi") -> dict[str, Any]:
    return {"id": id, "type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def a_response(id: str = "resp_1", *, previous: str | None = None, status: str = "completed") -> NewResponse:
    body = {
        "id": id,
        "status": status,
        "previous_response_id": previous,
        "conversation": None,
        "output": [an_item(f"out_{id}")],
        "metadata": {},
    }
    return NewResponse(body, TEAM, Origin(f"req_{id}", "ann", "s1"), time.time(), [an_item(f"in_{id}")])


async def test_what_was_stored_is_found_again(database: Database) -> None:
    store, new = ResponseStore(database), a_response()
    await store.create(new, [["text", "Hi", []]])
    stored = await store.retrieve("resp_1", TEAM)
    assert (stored.body, stored.is_interrupted) == (new.body, False)
    assert await store.steps("resp_1", TEAM) == ([["text", "Hi", []]], False)
    page = await store.input_items("resp_1", TEAM, after=None, limit=5, is_descending=True)
    assert (page.items, page.has_more) == (new.input, False)
    assert await store.items(["in_resp_1", "out_resp_1", "no"], TEAM) == {
        "in_resp_1": new.input[0],
        "out_resp_1": new.body["output"][0],
    }


async def test_a_large_response_is_packed_in_a_thread_and_found_again(database: Database) -> None:
    store, new = ResponseStore(database), a_response()
    new.body["output"][0]["content"][0]["text"] = "x" * 200_000
    await store.create(new, [])
    assert (await store.retrieve("resp_1", TEAM)).body == new.body


@pytest.mark.parametrize("other", OTHERS)
async def test_another_team_finds_nothing(database: Database, other: Owner) -> None:
    store, conversations = ResponseStore(database), ConversationStore(database)
    await store.create(a_response(), [])
    conversation = await conversations.create(TEAM, {}, [an_item("msg_1")])
    for attempt in (
        store.retrieve("resp_1", other),
        store.steps("resp_1", other),
        store.input_items("resp_1", other, after=None, limit=5, is_descending=True),
        store.context("resp_1", other),
        store.delete("resp_1", other),
        conversations.retrieve(conversation.id, other),
        conversations.update(conversation.id, other, {"a": "b"}),
        conversations.delete(conversation.id, other),
        conversations.append(conversation.id, [an_item("msg_2")], other),
        conversations.items(conversation.id, other),
        conversations.page(conversation.id, other, after=None, limit=5, is_descending=True),
        conversations.item(conversation.id, "msg_1", other),
        conversations.delete_item(conversation.id, "msg_1", other),
    ):
        with pytest.raises(NotFoundError):
            await attempt
    assert await store.items(["in_resp_1", "msg_1"], other) == {}
    assert await conversations.items(conversation.id, TEAM) == [an_item("msg_1")]
    assert (await conversations.retrieve(conversation.id, TEAM)).metadata == {}


async def test_a_remade_team_does_not_see_what_the_deleted_one_had(database: Database) -> None:
    store = ResponseStore(database)
    await store.create(a_response(), [])
    remade = replace(TEAM, since=time.time() + 1)
    with pytest.raises(NotFoundError):
        await store.retrieve("resp_1", remade)
    with pytest.raises(NotFoundError):
        await store.context("resp_1", remade)
    assert await store.items(["in_resp_1"], remade) == {}


async def test_a_response_continues_the_items_of_those_before_it(database: Database) -> None:
    store = ResponseStore(database)
    for id, previous in (("a", None), ("b", "a"), ("c", "b"), ("d", "b")):
        await store.create(a_response(id, previous=previous), [])
    found = [item["id"] for item in await store.context("d", TEAM)]
    assert found == ["in_a", "out_a", "in_b", "out_b", "in_d", "out_d"]


async def test_a_response_whose_predecessor_was_deleted_cannot_be_continued(database: Database) -> None:
    store = ResponseStore(database)
    for id, previous in (("a", None), ("b", "a"), ("c", "b")):
        await store.create(a_response(id, previous=previous), [])
    await store.delete("a", TEAM)
    with pytest.raises(NotFoundError) as caught:
        await store.context("c", TEAM)
    assert (caught.value.param, caught.value.code) == ("previous_response_id", "previous_response_not_found")
    assert await store.items(["in_a", "out_a"], TEAM) == {}


async def test_a_conversation_that_is_too_long_is_refused(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_items, "MAX_CONTEXT_BYTES", 300)
    store = ResponseStore(database)
    await store.create(a_response("a"), [])
    assert len(await store.context("a", TEAM)) == 2
    await store.create(a_response("b", previous="a"), [])
    with pytest.raises(BadRequestError) as caught:
        await store.context("b", TEAM)
    assert caught.value.code == "context_too_large"


async def test_a_response_in_progress_is_interrupted_when_its_lease_ends(database: Database) -> None:
    store, new = ResponseStore(database), a_response(status="in_progress")
    await store.begin(new, alive_until=time.time() + 100)
    assert not (await store.retrieve("resp_1", TEAM)).is_interrupted
    with pytest.raises(BadRequestError):
        await store.context("resp_1", TEAM)
    await store.renew(["resp_1"], alive_until=time.time() - 1)
    stored = await store.retrieve("resp_1", TEAM)
    assert stored.is_interrupted
    assert stored.body["output"] == []
    assert await store.context("resp_1", TEAM) == new.input


async def test_a_response_is_finished_once(database: Database) -> None:
    store, new = ResponseStore(database), a_response(status="in_progress")
    await store.begin(new, alive_until=time.time() + 100)
    new.body["status"] = "completed"
    assert await store.finish(new, [])
    assert (await store.retrieve("resp_1", TEAM)).body == new.body
    assert not await store.finish(new, [])


async def test_a_response_that_was_deleted_meanwhile_is_not_stored_again(database: Database) -> None:
    store, new = ResponseStore(database), a_response(status="in_progress")
    await store.begin(new, alive_until=time.time() + 100)
    await store.delete("resp_1", TEAM)
    assert not await store.finish(new, [])
    assert await store.items(["in_resp_1", "out_resp_1"], TEAM) == {}


async def test_items_are_listed_in_pages_both_ways(database: Database) -> None:
    store = ConversationStore(database)
    conversation = await store.create(TEAM, {"a": "b"}, [an_item(f"m{n}") for n in range(5)])
    await store.append(conversation.id, [an_item("m5")], TEAM)
    for is_descending, expected in ((False, range(6)), (True, range(5, -1, -1))):
        found: list[str] = []
        after = None
        while True:
            page = await store.page(conversation.id, TEAM, after=after, limit=2, is_descending=is_descending)
            found += [item["id"] for item in page.items]
            if not page.has_more:
                break
            after = found[-1]
        assert found == [f"m{n}" for n in expected]
    with pytest.raises(NotFoundError):
        await store.page(conversation.id, TEAM, after="m9", limit=2, is_descending=False)


async def test_a_page_of_large_items_ends_earlier(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_items, "MAX_PAGE_BYTES", 10_000)
    store = ConversationStore(database)
    sizes = [4000, 4000, 4000, 20_000, 1]
    conversation = await store.create(TEAM, {}, [an_item(f"m{n}", "x" * size) for n, size in enumerate(sizes)])
    pages: list[list[str]] = []
    after = None
    while True:
        page = await store.page(conversation.id, TEAM, after=after, limit=100, is_descending=False)
        pages.append([item["id"] for item in page.items])
        if not page.has_more:
            break
        after = pages[-1][-1]
    assert pages == [["m0", "m1"], ["m2"], ["m3"], ["m4"]]


@pytest.mark.parametrize("is_descending", [False, True])
async def test_a_list_with_an_id_that_is_there_twice_ends(database: Database, is_descending: bool) -> None:
    store = ConversationStore(database)
    conversation = await store.create(TEAM, {}, [an_item("a"), an_item("b"), an_item("a")])
    found: list[str] = []
    after = None
    for _ in range(4):
        page = await store.page(conversation.id, TEAM, after=after, limit=1, is_descending=is_descending)
        found += [item["id"] for item in page.items]
        if not page.has_more:
            return
        after = found[-1]
    raise AssertionError(f"the list does not end: {found}")


async def test_items_that_are_referred_to_are_bounded_together(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_items, "MAX_CONTEXT_BYTES", 10_000)
    store, responses = ConversationStore(database), ResponseStore(database)
    await store.create(TEAM, {}, [an_item(f"m{n}", "x" * 4000) for n in range(3)])
    assert set(await responses.items(["m0", "m1"], TEAM)) == {"m0", "m1"}
    with pytest.raises(BadRequestError, match="refers to are too large") as refused:
        await responses.items(["m0", "m1", "m2"], TEAM)
    assert refused.value.code == "context_too_large"


async def test_an_item_that_is_in_many_conversations_is_read_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_items, "MAX_CONTEXT_BYTES", 10_000)
    store, responses = ConversationStore(database), ResponseStore(database)
    for n in range(5):
        await store.create(TEAM, {}, [an_item("m0", str(n) * 4000)])
    found = await responses.items(["m0"], TEAM)
    assert found == {"m0": an_item("m0", "4" * 4000)}


async def test_items_of_a_conversation_are_deleted_one_by_one_and_with_it(database: Database) -> None:
    store = ConversationStore(database)
    conversation = await store.create(TEAM, {}, [an_item("m0"), an_item("m1")])
    await store.delete_item(conversation.id, "m0", TEAM)
    assert await store.items(conversation.id, TEAM) == [an_item("m1")]
    with pytest.raises(NotFoundError):
        await store.delete_item(conversation.id, "m0", TEAM)
    await store.append(conversation.id, [an_item("m2")], TEAM)
    assert [item["id"] for item in await store.items(conversation.id, TEAM)] == ["m1", "m2"]
    await store.delete(conversation.id, TEAM)
    assert await ResponseStore(database).items(["m1", "m2"], TEAM) == {}


async def test_a_full_conversation_takes_nothing_more(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quarterdeck.store.conversations.MAX_ITEMS", 2)
    store = ConversationStore(database)
    conversation = await store.create(TEAM, {}, [an_item("m0")])
    with pytest.raises(BadRequestError):
        await store.append(conversation.id, [an_item("m1"), an_item("m2")], TEAM)
    assert len(await store.items(conversation.id, TEAM)) == 1


def test_text_that_postgresql_refuses_is_replaced() -> None:
    assert storable("a\x00b") == "a\ufffdb"
    assert storable("") is None
