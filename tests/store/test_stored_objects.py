"""Responses and conversations are deleted by age, and with the request, user or session that they belong to."""

import time

import pytest

from quarterdeck.store.contents import DeleteBy, Deletion
from quarterdeck.store.conversations import ConversationStore
from quarterdeck.store.database import Database
from quarterdeck.store.ownership import Origin, Owner
from quarterdeck.store.responses import NewResponse, ResponseStore
from quarterdeck.store.stored_objects import StoredObjects

TEAM = Owner("default", "default", "key_1")
NOW = time.time()


def an_item(id: str) -> dict[str, str]:
    return {"id": id, "type": "message"}


async def fill(database: Database, *, created: float = NOW) -> str:
    """Two responses of different users, of which the first belongs to a conversation. Returns its id."""
    store, conversations = ResponseStore(database), ConversationStore(database)
    conversation = await conversations.create(TEAM, {}, [an_item("given")])
    for name in ("a", "b"):
        body = {
            "id": name,
            "status": "completed",
            "previous_response_id": None,
            "conversation": None,
            "output": [an_item(f"out_{name}")],
        }
        origin = Origin(f"req_{name}", f"user_{name}", f"session_{name}")
        await store.create(NewResponse(body, TEAM, origin, created, [an_item(f"in_{name}")]), [])
        await conversations.append(conversation.id, [an_item(f"said_{name}")], TEAM, origin=origin)
    return conversation.id


async def left(database: Database) -> set[str]:
    ids = ["in_a", "out_a", "said_a", "in_b", "out_b", "said_b", "given"]
    return set(await ResponseStore(database).items(ids, TEAM))


@pytest.mark.parametrize(("by", "value"), [("request", "req_a"), ("user", "user_a"), ("session", "session_a")])
async def test_a_deletion_covers_responses_and_their_items_everywhere(
    database: Database, by: DeleteBy, value: str
) -> None:
    await fill(database)
    objects = StoredObjects(database)
    assert await objects.apply(Deletion("acme", by, value, time.time())) == 0
    assert await objects.apply(Deletion("default", by, value, NOW - 1)) == 0
    assert await objects.apply(Deletion("default", by, value, time.time() + 1)) == 1
    assert await left(database) == {"in_b", "out_b", "said_b", "given"}


async def test_what_is_too_old_is_deleted_with_its_items(database: Database) -> None:
    conversation = await fill(database, created=NOW - 100)
    objects = StoredObjects(database)
    assert await objects.delete_older(NOW - 200, org="default") == 0
    assert await objects.delete_older(NOW - 50, org="acme") == 0
    assert await objects.delete_older(NOW - 50, org="default") == 2
    assert await left(database) == {"said_a", "said_b", "given"}
    assert await ConversationStore(database).items(conversation, TEAM)
    assert await objects.delete_older(time.time() + 1, org="default") == 1
    assert await left(database) == set()
