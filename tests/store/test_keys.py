"""A key is found by its digest; its secret is not stored."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from quarterdeck import ids
from quarterdeck.errors import ConflictError, NotFoundError
from quarterdeck.settings.limits import Limits
from quarterdeck.store.database import Database, DatabaseUnavailableError
from quarterdeck.store.keys import KeyStore
from quarterdeck.store.orgs import OrgStore


@pytest.fixture
def keys(database: Database) -> KeyStore:
    return KeyStore(database)


async def test_a_new_key_is_found_by_its_digest(keys: KeyStore) -> None:
    secret = ids.api_key()
    limits = Limits(requests_per_minute=5, max_tokens=100)
    made = await keys.create(
        secret=secret, name="ci", team="research", limits=limits, models=["b", "a", "a"], expires=5e9, is_admin=True
    )
    found = await keys.find(ids.digest(secret))
    assert found == made
    assert (made.name, made.org, made.team, made.limits, made.is_admin) == ("ci", "default", "research", limits, True)
    assert made.models == {"a", "b"}
    assert made.hint == secret[-4:]


async def test_without_limits_and_models_none_are_its_own(keys: KeyStore) -> None:
    made = await keys.create(secret=ids.api_key(), name="plain")
    assert (made.limits, made.models, made.expires, made.is_admin) == (None, None, None, False)


async def test_an_empty_list_of_models_is_none_and_not_all(keys: KeyStore) -> None:
    made = await keys.create(secret=ids.api_key(), name="nothing", models=[])
    assert made.models == frozenset()


async def test_an_unknown_digest_is_none(keys: KeyStore) -> None:
    assert await keys.find(ids.digest("sk-qd-unknown")) is None


async def test_the_secret_is_nowhere_in_the_file(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    await database.migrate()
    secret = ids.api_key()
    await KeyStore(database).create(secret=secret, name="x")
    await database.close()
    folder = Path(str(make_url(sqlite_url).database)).parent
    assert not [file for file in folder.iterdir() if secret.encode() in file.read_bytes()]


async def test_a_revoked_key_is_found_all_the_same(keys: KeyStore) -> None:
    secret = ids.api_key()
    made = await keys.create(secret=secret, name="x")
    revoked = await keys.revoke(made.id)
    assert revoked.revoked is not None
    assert await keys.find(ids.digest(secret)) == revoked


async def test_revoking_again_changes_nothing(keys: KeyStore) -> None:
    made = await keys.create(secret=ids.api_key(), name="x")
    assert await keys.revoke(made.id) == await keys.revoke(made.id)


async def test_keys_are_listed_newest_first_in_pieces(keys: KeyStore) -> None:
    made = [await keys.create(secret=ids.api_key(), name=f"k{i}") for i in range(5)]
    seen, after = [], None
    while True:
        page = await keys.list(limit=2, after=after)
        seen += page.rows
        if not page.has_more:
            break
        after = page.rows[-1].id
    assert seen == made[::-1]


async def test_a_list_may_be_of_one_team(keys: KeyStore) -> None:
    await keys.create(secret=ids.api_key(), name="a", team="t1")
    await keys.create(secret=ids.api_key(), name="b", team="t2")
    assert [row.name for row in (await keys.list(team="t2")).rows] == ["b"]


async def test_another_orgs_key_is_not_found(keys: KeyStore) -> None:
    theirs = await keys.create(secret=ids.api_key(), name="x", org="other")
    assert (await keys.list()).rows == ()
    with pytest.raises(NotFoundError):
        await keys.retrieve(theirs.id)
    with pytest.raises(NotFoundError):
        await keys.revoke(theirs.id)
    with pytest.raises(NotFoundError):
        await keys.list(after=theirs.id)
    assert (await keys.retrieve(theirs.id, org="other")).revoked is None


async def test_the_same_secret_twice_is_a_conflict(keys: KeyStore) -> None:
    secret = ids.api_key()
    await keys.create(secret=secret, name="x")
    with pytest.raises(ConflictError):
        await keys.create(secret=secret, name="y")


async def test_ensuring_a_key_makes_it_once_however_many_ask(keys: KeyStore) -> None:
    secret = ids.api_key()
    rows = await asyncio.gather(*(keys.ensure(secret=secret, name="local", is_admin=True) for _ in range(4)))
    assert len({row.id for row in rows}) == 1
    assert len((await keys.list()).rows) == 1


async def test_ensuring_does_not_bring_a_revoked_key_back(keys: KeyStore) -> None:
    secret = ids.api_key()
    await keys.revoke((await keys.ensure(secret=secret, name="local")).id)
    assert (await keys.ensure(secret=secret, name="local")).revoked is not None


async def test_orgs_are_made_when_named_and_listed(database: Database) -> None:
    orgs = OrgStore(database)
    assert await orgs.list() == []
    await orgs.ensure()
    await orgs.ensure("acme", "research")
    await orgs.ensure()
    assert await orgs.list() == ["acme", "default"]


async def test_a_database_without_tables_is_an_outage_and_not_an_unknown_key(database: Database) -> None:
    async with database.begin() as connection:
        await connection.execute(text("ALTER TABLE api_keys RENAME TO elsewhere"))
    with pytest.raises(DatabaseUnavailableError):
        await KeyStore(database).find("00")


FIRST, SECOND = "sk-qd-" + "a1B2c3D4e5" * 4, "sk-qd-" + "z9Y8x7W6v5" * 4


async def test_the_bootstrap_key_is_made_once(keys: KeyStore) -> None:
    made = [row for row, _ in await asyncio.gather(*(keys.ensure_bootstrap(FIRST) for _ in range(5)))]
    assert len({row.id for row in made}) == 1
    found = await keys.find(ids.digest(FIRST))
    assert found == made[0] and found.is_admin and found.org == "default"
    assert len((await keys.list()).rows) == 1


async def test_a_new_bootstrap_secret_replaces_the_former_key_and_no_other(keys: KeyStore) -> None:
    other = await keys.create(secret=ids.api_key(), name="bootstrap", is_admin=True)
    former, _ = await keys.ensure_bootstrap(FIRST)
    row, replaced = await keys.ensure_bootstrap(SECOND)
    assert [each.id for each in replaced] == [former.id]
    assert (await keys.retrieve(former.id)).revoked is not None
    assert (await keys.retrieve(other.id)).revoked is None and row.revoked is None


async def test_a_gateway_with_the_former_bootstrap_secret_does_not_revoke_the_new_one(keys: KeyStore) -> None:
    await keys.ensure_bootstrap(FIRST)
    new, _ = await keys.ensure_bootstrap(SECOND)
    row, replaced = await keys.ensure_bootstrap(FIRST)
    assert row.revoked is not None and replaced == ()
    assert (await keys.retrieve(new.id)).revoked is None


async def test_a_bootstrap_key_that_an_admin_revoked_stays_revoked(keys: KeyStore) -> None:
    row, _ = await keys.ensure_bootstrap(FIRST)
    await keys.revoke(row.id)
    again, _ = await keys.ensure_bootstrap(FIRST)
    assert again.id == row.id and again.revoked is not None
