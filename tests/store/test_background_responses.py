"""How many background responses an organisation may have queued."""

import time

import pytest
from sqlalchemy import text

from quarterdeck.errors import NotFoundError, RateLimitError
from quarterdeck.store import background_responses
from quarterdeck.store.background_responses import BackgroundStore
from quarterdeck.store.database import Database
from quarterdeck.store.jobs import JobStore
from quarterdeck.store.ownership import Origin, Owner
from quarterdeck.store.responses import NewResponse, ResponseStore

TEAM, ACME = Owner("default", "red", "key_1"), Owner("acme", "red", "key_2")


def queued(id: str, owner: Owner = TEAM) -> NewResponse:
    body = {
        "id": id,
        "status": "queued",
        "background": True,
        "previous_response_id": None,
        "conversation": None,
        "output": [],
        "metadata": {},
    }
    return NewResponse(body, owner, Origin(f"req_{id}"), time.time(), [])


@pytest.mark.parametrize(("name", "most"), [("MAX_OPEN", 2), ("MAX_OPEN_BYTES", 25)])
async def test_an_organisation_queues_a_bounded_number(
    database: Database, monkeypatch: pytest.MonkeyPatch, name: str, most: int
) -> None:
    monkeypatch.setattr(background_responses, name, most)
    store = BackgroundStore(database, JobStore(database))
    for id in ("resp_1", "resp_2"):
        await store.enqueue(queued(id), b"0123456789")
    with pytest.raises(RateLimitError) as caught:
        await store.enqueue(queued("resp_3"), b"0123456789")
    assert (caught.value.code, caught.value.retry_after) == ("too_many_background_responses", 10)
    with pytest.raises(NotFoundError):  # nothing of it is stored
        await ResponseStore(database).retrieve("resp_3", TEAM)
    await store.enqueue(queued("resp_4", ACME), b"0123456789")
    async with database.begin() as connection:
        await connection.execute(text("UPDATE jobs SET finished = 1, payload = NULL WHERE subject = 'resp_1'"))
    await store.enqueue(queued("resp_5"), b"0123456789")
