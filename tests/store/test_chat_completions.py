"""Stored chat completions are found by their team, in pages, and by no other."""

from typing import Any

import pytest

from quarterdeck.errors import NotFoundError
from quarterdeck.store.chat_completions import ChatCompletionStore, NewChatCompletion
from quarterdeck.store.contents import Deletion
from quarterdeck.store.database import Database
from quarterdeck.store.ownership import Origin, Owner
from quarterdeck.store.stored_objects import StoredObjects

TEAM = Owner("default", "red", "key_1")
MESSAGES = [{"role": "user", "content": "Hi"}]


def a_completion(id: str, created: float = 1.0, **metadata: str) -> NewChatCompletion:
    body = {"id": id, "model": "chat", "choices": []}
    return NewChatCompletion(body, MESSAGES, TEAM, Origin(f"req_{id}"), created, metadata)


async def ids(store: ChatCompletionStore, of: Owner = TEAM, **asked: Any) -> list[str]:
    options = {"after": None, "limit": 10, "is_descending": False, "metadata": {}, **asked}
    return [each["id"] for each in await store.page(of, **options)]


async def test_what_was_stored_is_found_again(database: Database) -> None:
    store, new = ChatCompletionStore(database), a_completion("a", topic="ships")
    assert await store.create(new)
    assert await store.retrieve("a", TEAM) == {**new.body, "metadata": {"topic": "ships"}}
    assert await store.messages("a", TEAM) == MESSAGES
    assert (await store.update("a", TEAM, {}))["metadata"] == {}
    await store.delete("a", TEAM)
    with pytest.raises(NotFoundError):
        await store.retrieve("a", TEAM)


async def test_an_id_that_is_taken_changes_nothing(database: Database) -> None:
    store = ChatCompletionStore(database)
    assert await store.create(a_completion("a", topic="ships"))
    assert not await store.create(a_completion("a", topic="boats"))
    assert (await store.retrieve("a", TEAM))["metadata"] == {"topic": "ships"}


@pytest.mark.parametrize("other", [Owner("default", "blue", "key_2"), Owner("acme", "red", "key_3")])
async def test_another_team_finds_nothing(database: Database, other: Owner) -> None:
    store = ChatCompletionStore(database)
    await store.create(a_completion("a"))
    for attempt in (
        store.retrieve("a", other),
        store.messages("a", other),
        store.update("a", other, {"x": "y"}),
        store.delete("a", other),
        ids(store, other, after="a"),
    ):
        with pytest.raises(NotFoundError):
            await attempt
    assert await ids(store, other) == []
    assert (await store.retrieve("a", TEAM))["metadata"] == {}


async def test_pages_go_by_time_both_ways_and_by_metadata(database: Database) -> None:
    store = ChatCompletionStore(database)
    for number, name in enumerate("abcde"):
        await store.create(a_completion(name, created=float(number // 2), parity=str(number % 2)))
    assert await ids(store, limit=2) == ["a", "b", "c"]  # one more than asked for: there are more
    assert await ids(store, after="b") == ["c", "d", "e"]
    assert await ids(store, after="d", is_descending=True) == ["c", "b", "a"]
    assert await ids(store, metadata={"parity": "1"}) == ["b", "d"]
    assert await ids(store, metadata={"nothing": "1"}) == []
    assert await ids(store, model="other") == []


async def test_completions_are_deleted_by_age_and_by_request(database: Database) -> None:
    store, objects = ChatCompletionStore(database), StoredObjects(database)
    for number, name in enumerate("abc"):
        await store.create(a_completion(name, created=float(number)))
    assert await objects.delete_older(1.0, org="default") == 1
    assert await objects.apply(Deletion("default", "request", "req_b", 5.0)) == 1
    assert await ids(store) == ["c"]


async def test_a_completion_whose_metadata_has_a_nul_leaves_lists_by_metadata_working(database: Database) -> None:
    store = ChatCompletionStore(database)
    await store.create(a_completion("a", topic="ships"))
    await store.create(a_completion("b", topic="sh\0ips"))
    await store.update("a", TEAM, {"topic": "ships", "no\0te": "\0"})
    assert await ids(store, metadata={"topic": "ships"}) == ["a"]


async def test_lists_by_metadata_leave_the_connections_of_look_ups_free(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ChatCompletionStore(database)
    await store.create(a_completion("a", topic="ships"))
    monkeypatch.delattr(Database, "connect")
    assert await ids(store, metadata={"topic": "ships"}) == ["a"]
    assert await ids(store, model="chat") == ["a"]
