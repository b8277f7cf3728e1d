"""Scores are stored once for each request, name and user, and only for one's own requests."""

import dataclasses
import time
from typing import Any

import pytest
from tests.records import a_record

from quarterdeck.errors import BadRequestError, NotFoundError, RateLimitError
from quarterdeck.store import scores
from quarterdeck.store.database import Database
from quarterdeck.store.ledger import Ledger
from quarterdeck.store.scores import Score, ScoreFilter, ScoreStore, new_id

ORG = "default"
ALL = ScoreFilter(org=ORG)
REQUEST = "req_" + "0" * 32


def a_score(**changes: Any) -> Score:
    now = time.time()
    fields: dict[str, Any] = {"id": new_id(), "org": ORG, "team": "default", "key": "key_1", "request": REQUEST}
    fields |= {"name": "feedback", "created": now, "updated": now}
    fields |= {"kind": "numeric", "value": 1.0}
    return Score(**(fields | changes))


async def test_a_score_of_a_known_request_counts_at_once(database: Database) -> None:
    await Ledger(database).insert([a_record(id=REQUEST)])
    store = ScoreStore(database)
    score = a_score()
    stored, is_new = await store.put(score)
    assert (stored, is_new) == (dataclasses.replace(score, is_confirmed=True), True)
    assert await store.list(ALL) == [stored]


async def test_the_same_request_name_and_user_replaces_the_score(database: Database) -> None:
    store = ScoreStore(database)
    first, _ = await store.put(a_score(user="u"))
    second, is_new = await store.put(a_score(user="u", value=3.0, comment="better"))
    await store.put(a_score(user="v"))
    await store.put(a_score(user="u", name="tone"))
    assert (second.id, second.created, is_new) == (first.id, first.created, False)
    assert (second.value, second.comment) == (3.0, "better")
    assert len(await store.list(ALL)) == 3


async def test_another_teams_request_does_not_exist(database: Database) -> None:
    await Ledger(database).insert([a_record(id=REQUEST, team="red")])
    store = ScoreStore(database)
    for stranger in (a_score(team="blue"), a_score(team="red", org="acme")):
        with pytest.raises(NotFoundError) as caught:
            await store.put(stranger)
        assert caught.value.code == "request_not_found"
    stored, _ = await store.put(a_score(team="blue"), is_admin=True)
    assert stored.team == "red"
    with pytest.raises(NotFoundError):
        await store.put(a_score(org="acme"), is_admin=True)


async def test_a_score_that_is_early_waits_and_counts_when_its_request_arrives(database: Database) -> None:
    store = ScoreStore(database)
    stored, _ = await store.put(a_score())
    assert not stored.is_confirmed
    assert await store.confirm(org=ORG, before=0.0) == 0
    assert await store.to_export(org=ORG) == []
    await Ledger(database).insert([a_record(id=REQUEST)])
    assert await store.confirm(org=ORG, before=0.0) == 1
    assert [score.id for score, _ in await store.to_export(org=ORG)] == [stored.id]


async def test_an_early_score_of_another_teams_request_is_deleted_when_it_arrives(database: Database) -> None:
    store = ScoreStore(database)
    await store.put(a_score(team="blue"))
    await Ledger(database).insert([a_record(id=REQUEST, team="red")])
    await store.confirm(org=ORG, before=0.0)
    assert await store.list(ALL) == []


async def test_an_early_score_of_one_team_does_not_keep_another_from_scoring_its_request(database: Database) -> None:
    store = ScoreStore(database)
    await store.put(a_score(team="blue"))
    with pytest.raises(NotFoundError):  # until the worker has seen whose it is
        await store.put(a_score(team="red"))
    await Ledger(database).insert([a_record(id=REQUEST, team="red")])
    await store.confirm(org=ORG, before=0.0)
    stored, is_new = await store.put(a_score(team="red"))
    assert (stored.team, is_new) == ("red", True)


async def test_a_score_whose_request_never_comes_is_deleted(database: Database) -> None:
    store = ScoreStore(database)
    await store.put(a_score(created=100.0))
    await store.put(a_score(created=300.0, user="u"))
    await store.confirm(org=ORG, before=200.0)
    assert [score.created for score in await store.list(ALL)] == [300.0]


async def test_scores_for_guessed_requests_are_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "MAX_PENDING", 3)
    store = ScoreStore(database)
    for n in range(3):
        await store.put(a_score(request=f"req_{n:032x}"))
    with pytest.raises(RateLimitError):
        await store.put(a_score(request=f"req_{9:032x}"))
    await store.put(a_score(team="blue", request=f"req_{9:032x}"))


async def test_scores_of_one_request_are_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "MAX_OF_REQUEST", 3)
    await Ledger(database).insert([a_record(id=REQUEST), a_record(id="req_" + "1" * 32)])
    store = ScoreStore(database)
    for user in "abc":
        await store.put(a_score(user=user))
    with pytest.raises(BadRequestError) as caught:
        await store.put(a_score(user="d"))
    assert caught.value.code == "too_many_scores"
    replaced, is_new = await store.put(a_score(user="a", value=2.0))  # as before
    assert (replaced.value, is_new) == (2.0, False)
    await store.put(a_score(user="d", request="req_" + "1" * 32))


async def test_an_admins_early_score_counts_for_the_team_of_its_request(database: Database) -> None:
    store = ScoreStore(database)
    await store.put(a_score(source="api"), is_admin=True)
    await Ledger(database).insert([a_record(id=REQUEST, team="red")])
    assert await store.confirm(org=ORG, before=0.0) == 1
    assert [score.team for score in await store.list(ALL)] == ["red"]


async def test_pages_and_filters(database: Database) -> None:
    store = ScoreStore(database)
    made = [
        (await store.put(a_score(user=f"u{n}", created=float(n // 2), name="a" if n % 2 else "b")))[0] for n in range(7)
    ]
    seen: list[str] = []
    after = None
    while page := await store.list(ALL, limit=2, after=after):
        seen += [score.id for score in page]
        after = page[-1].id
    assert sorted(seen) == sorted(score.id for score in made)
    assert len(set(seen)) == 7
    assert len(await store.list(ScoreFilter(org=ORG, name="a"))) == 3
    assert len(await store.list(ScoreFilter(org=ORG, user="u3", request=REQUEST))) == 1
    assert await store.list(ScoreFilter(org="acme")) == []
    with pytest.raises(NotFoundError):
        await store.list(ALL, after="score_0")


async def test_the_outbox_has_what_changed_since_it_was_exported(database: Database) -> None:
    await Ledger(database).insert([a_record(id=REQUEST)])
    store = ScoreStore(database)
    stored, _ = await store.put(a_score(updated=10.0))
    await store.mark_exported(stored)
    assert await store.to_export(org=ORG) == []
    changed, _ = await store.put(a_score(updated=20.0, value=0.0))
    assert await store.to_export(org=ORG) == [(changed, "0" * 32)]
    await store.mark_exported(changed)
    await store.delete(stored.id, org=ORG)
    ((gone, _),) = await store.to_export(org=ORG)
    assert (gone.exported, gone.deleted is not None) == (20.0, True)
    await store.remove([gone.id], org=ORG)
    assert await store.to_export(org=ORG) == []


async def test_a_deleted_score_is_in_no_list_and_may_be_written_again(database: Database) -> None:
    store = ScoreStore(database)
    stored, _ = await store.put(a_score())
    with pytest.raises(NotFoundError):
        await store.delete(stored.id, org="acme")
    with pytest.raises(NotFoundError):
        await store.delete(stored.id, org=ORG, team="blue")
    await store.delete(stored.id, org=ORG, team="default")
    assert await store.list(ALL) == []
    with pytest.raises(NotFoundError):
        await store.delete(stored.id, org=ORG)
    again, _ = await store.put(a_score())
    assert await store.list(ALL) == [again]
    await store.delete(again.id, org=ORG)
    assert await store.remove_deleted(org=ORG) == 1
