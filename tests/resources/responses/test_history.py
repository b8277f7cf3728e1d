"""What an input refers to is bounded: a few bytes of a request must not become gigabytes."""

import time
from typing import Any

import pytest

from quarterdeck.errors import BadRequestError, ServiceUnavailableError
from quarterdeck.resources.responses import history
from quarterdeck.resources.responses.history import ENCRYPTED_REASONING, History
from quarterdeck.resources.responses.requests import ResponseRequest
from quarterdeck.resources.responses.sealed import Sealed
from quarterdeck.store.conversations import ConversationStore
from quarterdeck.store.database import Database
from quarterdeck.store.ownership import Origin, Owner
from quarterdeck.store.responses import NewResponse, ResponseStore

OWNER = Owner("default", "team", "key_1")
ITEM: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "user",
    "status": "completed",
    "content": [{"type": "input_text", "text": "Hi"}],
}


class Secret:
    async def read(self) -> bytes:
        return b"s" * 32


class NoFiles:
    async def read(self, context: Any, items: Any, owner: Owner) -> list[Any]:
        return [*context, *items]


def history_of(database: Database) -> History:
    return History(ResponseStore(database), ConversationStore(database), NoFiles(), Sealed(Secret()))


async def test_an_item_is_referred_to_once(database: Database) -> None:
    body = {"id": "resp_1", "status": "completed", "previous_response_id": None, "conversation": None, "output": []}
    new = NewResponse({**body, "metadata": {}}, OWNER, Origin("req_1"), time.time(), [ITEM])
    await ResponseStore(database).create(new, [])
    reference = {"type": "item_reference", "id": "msg_1"}
    reads = history_of(database)
    assert await reads.items(ResponseRequest(model="m", input=[reference]), OWNER) == [ITEM]
    with pytest.raises(BadRequestError, match="Duplicate item found with id 'msg_1'") as refused:
        await reads.items(ResponseRequest(model="m", input=[reference] * 2), OWNER)
    assert refused.value.code == "duplicate_item"


async def test_compactions_of_an_input_are_bounded_together(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = await Sealed(Secret()).seal("default", [ITEM])
    compaction = {"type": "compaction", "encrypted_content": content}
    _, size = await Sealed(Secret()).open("default", content, "input[0]")
    monkeypatch.setattr(history, "MAX_BYTES", 2 * size)
    reads = history_of(database)
    assert await reads.opened([compaction] * 2, "default") == [ITEM, ITEM]
    with pytest.raises(BadRequestError) as refused:
        await reads.opened([compaction] * 3, "default")
    assert refused.value.code == "context_too_large"


class UnreadableSecret:
    async def read(self) -> bytes:
        raise ServiceUnavailableError("The database is not available.")


async def test_without_the_platforms_secret_responses_go_on_without_encrypted_reasoning(database: Database) -> None:
    store, conversations = ResponseStore(database), ConversationStore(database)
    reads = History(store, conversations, NoFiles(), Sealed(UnreadableSecret()))
    asked = ResponseRequest(model="m", input="Hi", store=False, include=[ENCRYPTED_REASONING])
    assert await reads.reasoning_sealer(asked, "default") is None
    kept = {"id": "rs_1", "type": "reasoning", "summary": [], "content": [], "encrypted_content": "x"}
    assert await reads.opened([kept], "default") == [kept]
    assert await history_of(database).reasoning_sealer(asked, "default") is not None
