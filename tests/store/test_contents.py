"""Contents are stored once, compressed, and deleted by age or on request."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.records import a_record

from quarterdeck.content import Content
from quarterdeck.store import contents
from quarterdeck.store.contents import ContentStore, Deletion
from quarterdeck.store.database import Database

ORG = "default"
CONTENT = Content(
    level="full",
    input=b'{"messages":[{"role":"user","content":"Hi"}]}',
    output=b'[{"index":0}]',
    input_bytes=45,
    output_bytes=13,
    is_output_cut=True,
    redacted={"email": 2},
)


async def test_what_was_stored_is_found_again(database: Database) -> None:
    store = ContentStore(database)
    full, hashed = a_record(), a_record()
    hashes = Content(level="hashed", input_bytes=7, input_hash="ab", output_hash="cd")
    assert await store.insert([(full, CONTENT), (hashed, hashes)]) == 2
    assert await store.retrieve([full.id, hashed.id, "req_0"], org=ORG) == {full.id: CONTENT, hashed.id: hashes}
    assert await store.retrieve([full.id], org="acme") == {}


async def test_the_same_request_is_stored_once(database: Database) -> None:
    store = ContentStore(database)
    record = a_record()
    assert await store.insert([(record, CONTENT)]) == 1
    assert await store.insert([(record, Content(level="full", input=b"{}"))]) == 0
    assert await store.retrieve([record.id], org=ORG) == {record.id: CONTENT}


async def test_text_is_compressed(database: Database) -> None:
    packed = contents._packed(b'{"role":"user"}' * 1000)
    assert packed is not None
    assert len(packed) < 200


async def test_old_contents_are_deleted_in_batches(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "AT_ONCE", 10)
    store = ContentStore(database)
    old = [a_record(started=100.0 + n) for n in range(35)]
    new = a_record(started=500.0)
    other = a_record(started=1.0, org="acme")
    await store.insert([(record, CONTENT) for record in (*old, new, other)])
    assert await store.delete_older(500.0, org=ORG) == 35
    assert await store.count(org=ORG) == 1
    assert await store.count(org="acme") == 1


async def test_a_user_with_a_nul_is_stored_and_deleted_as_the_ledger_has_it(database: Database) -> None:
    store = ContentStore(database)
    record = a_record(user="a\x00b", session="s" * 2000, started=1.0)
    await store.insert([(record, CONTENT)])
    deletion, count = await store.delete("user", "a�b", org=ORG, key="key_1")
    assert count == 1
    assert deletion.covers(record)
    assert Deletion(ORG, "session", "s" * 512, time.time()).covers(record)


async def test_deletions_are_forgotten_after_their_time(database: Database) -> None:
    store = ContentStore(database)
    deletion, _ = await store.delete("user", "u", org=ORG, key="key_1")
    assert await store.deletions([ORG], since=0.0) == [deletion]
    assert await store.deletions(["acme"], since=0.0) == []
    await store.forget_deletions(deletion.at + 1, org=ORG)
    assert await store.deletions([ORG], since=0.0) == []


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.sampled_from(["u", "v", None]))
def test_a_deletion_covers_what_began_before_it_and_nothing_else(at: float, started: float, user: str | None) -> None:
    covers = Deletion(ORG, "user", "u", at).covers(a_record(user=user, started=started))
    assert covers == (user == "u" and started <= at)
    assert not Deletion("acme", "user", "u", at).covers(a_record(user=user, started=started))
