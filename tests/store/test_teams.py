"""Terms of teams and organisations are stored exactly, and read with their keys."""

import asyncio
from decimal import Decimal

import pytest

from quarterdeck import ids
from quarterdeck.errors import ConflictError, NotFoundError
from quarterdeck.settings.limits import Budget, Limits
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore
from quarterdeck.store.orgs import OrgStore
from quarterdeck.store.teams import TeamStore
from quarterdeck.store.terms import Terms

LIMITS = Limits(requests_per_minute=5, max_tokens=100)
BUDGET = Budget(amount=Decimal("0.100001"), period="week", on_exhausted="warn")


@pytest.fixture
def teams(database: Database) -> TeamStore:
    return TeamStore(database)


@pytest.fixture
def keys(database: Database) -> KeyStore:
    return KeyStore(database)


@pytest.fixture
def orgs(database: Database) -> OrgStore:
    return OrgStore(database)


async def test_a_team_comes_back_as_it_was_made(teams: TeamStore) -> None:
    made = await teams.create("red", org="default", limits=LIMITS, budget=BUDGET, priority=3)
    assert made.terms == Terms(LIMITS, BUDGET, 3)
    assert await teams.retrieve("red", org="default") == made


async def test_a_team_is_made_once(teams: TeamStore) -> None:
    await teams.create("red", org="default", limits=LIMITS)
    with pytest.raises(ConflictError):
        await teams.create("red", org="default")
    assert (await teams.retrieve("red", org="default")).terms.limits == LIMITS
    assert (await teams.create("red", org="other")).org == "other"


async def test_an_update_changes_what_it_names(teams: TeamStore) -> None:
    await teams.create("red", org="default", limits=LIMITS, budget=BUDGET, priority=3)
    assert (await teams.update("red", org="default", budget=None)).terms == Terms(LIMITS, None, 3)
    assert (await teams.update("red", org="default", priority=0, limits=None)).terms == Terms(None, None, 0)
    assert (await teams.update("red", org="default")).terms == Terms(None, None, 0)


async def test_teams_are_listed_by_name_in_pieces(teams: TeamStore) -> None:
    for name in ("c", "a", "b"):
        await teams.create(name, org="default")
    await teams.create("theirs", org="other")
    assert [row.id for row in await teams.list(org="default", limit=2)] == ["a", "b"]
    assert [row.id for row in await teams.list(org="default", after="b")] == ["c"]


async def test_another_orgs_team_is_not_found(teams: TeamStore) -> None:
    await teams.create("red", org="other")
    with pytest.raises(NotFoundError):
        await teams.retrieve("red", org="default")
    with pytest.raises(NotFoundError):
        await teams.update("red", org="default", priority=9)
    with pytest.raises(NotFoundError):
        await teams.delete("red", org="default")
    assert (await teams.retrieve("red", org="other")).terms == Terms()


async def test_a_team_with_keys_is_not_deleted(teams: TeamStore, keys: KeyStore) -> None:
    key = await keys.create(secret=ids.api_key(), name="x", team="red")
    with pytest.raises(ConflictError, match="1 keys"):
        await teams.delete("red", org="default")
    await keys.revoke(key.id)
    await teams.delete("red", org="default")
    with pytest.raises(NotFoundError):
        await teams.retrieve("red", org="default")
    assert [row.id for row in await teams.list(org="default")] == []
    assert (await keys.retrieve(key.id)).team == "red", "a revoked key stays in the list"


async def test_a_team_that_is_made_again_begins_bare(teams: TeamStore, keys: KeyStore) -> None:
    for again in (False, True):
        made = await teams.create("red", org="default", limits=LIMITS)
        assert made.terms.budget is None
        assert made.remade == (made.created if again else None)
        await teams.update("red", org="default", budget=BUDGET)
        await teams.delete("red", org="default")
    assert (await keys.create(secret=ids.api_key(), name="x", team="blue")).team_remade is None
    key = await keys.create(secret=ids.api_key(), name="x", team="red")
    assert key.of_team == Terms()
    assert key.team_remade is not None
    assert (await teams.retrieve("red", org="default")).terms == Terms()


async def test_a_key_that_comes_while_its_team_goes_has_a_team(teams: TeamStore, keys: KeyStore) -> None:
    for i in range(5):
        team = f"t{i}"
        await teams.create(team, org="default")
        key, gone = await asyncio.gather(
            keys.create(secret=ids.api_key(), name="x", team=team),
            teams.delete(team, org="default"),
            return_exceptions=True,
        )
        assert not isinstance(key, BaseException)
        assert gone is None or isinstance(gone, ConflictError)
        assert (await teams.retrieve(team, org="default")).id == team


async def test_an_org_is_made_once_and_has_a_team(orgs: OrgStore, teams: TeamStore) -> None:
    made = await orgs.create("acme", limits=LIMITS, budget=BUDGET)
    assert await orgs.retrieve("acme") == made
    assert [row.id for row in await teams.list(org="acme")] == ["default"]
    with pytest.raises(ConflictError):
        await orgs.create("acme")
    with pytest.raises(NotFoundError):
        await orgs.retrieve("nobody")


async def test_an_org_is_updated_and_listed(orgs: OrgStore) -> None:
    for id in ("b", "a", "c"):
        await orgs.create(id)
    assert (await orgs.update("a", budget=BUDGET)).terms == Terms(None, BUDGET)
    assert (await orgs.update("a", limits=LIMITS)).terms == Terms(LIMITS, BUDGET)
    with pytest.raises(NotFoundError):
        await orgs.update("nobody", limits=LIMITS)
    assert [row.id for row in await orgs.page(limit=2)] == ["a", "b"]
    assert [row.id for row in await orgs.page(after="b")] == ["c"]


async def test_a_key_brings_what_its_team_and_org_may_take(keys: KeyStore, teams: TeamStore, orgs: OrgStore) -> None:
    secret = ids.api_key()
    made = await keys.create(secret=secret, name="x", team="red", budget=BUDGET, priority=0, tags=["b", "a", "b"])
    assert (made.budget, made.priority, made.tags) == (BUDGET, 0, ("b", "a"))
    assert (made.of_team, made.of_org) == (Terms(), Terms())
    await teams.update("red", org="default", limits=LIMITS, priority=7)
    await orgs.update("default", budget=BUDGET)
    for row in (await keys.find(ids.digest(secret)), await keys.retrieve(made.id), (await keys.list()).rows[0]):
        assert row is not None
        assert (row.of_team, row.of_org) == (Terms(LIMITS, None, 7), Terms(None, BUDGET))


async def test_a_key_is_changed_in_what_is_named(keys: KeyStore) -> None:
    made = await keys.create(secret=ids.api_key(), name="x", limits=LIMITS, models=["m"], tags=["t"], expires=5e9)
    changed = await keys.update(made.id, name="y", team="blue", budget=BUDGET, priority=9)
    assert (changed.name, changed.team, changed.budget, changed.priority) == ("y", "blue", BUDGET, 9)
    assert (changed.limits, changed.models, changed.tags, changed.expires) == (LIMITS, {"m"}, ("t",), 5e9)
    bare = await keys.update(made.id, limits=None, budget=None, models=None, priority=None, tags=(), expires=None)
    assert (bare.limits, bare.budget, bare.models, bare.priority, bare.tags, bare.expires) == (None,) * 4 + ((), None)
    assert await keys.update(made.id) == bare


async def test_a_rotated_key_has_another_secret_and_is_the_same_key(keys: KeyStore) -> None:
    old, new = ids.api_key(), ids.api_key()
    made = await keys.create(secret=old, name="x", limits=LIMITS)
    rotated = await keys.rotate(made.id, secret=new)
    assert (rotated.id, rotated.limits, rotated.hint) == (made.id, LIMITS, new[-4:])
    assert await keys.find(ids.digest(old)) is None
    assert await keys.find(ids.digest(new)) == rotated


async def test_a_revoked_key_is_not_changed_any_more(keys: KeyStore) -> None:
    made = await keys.create(secret=ids.api_key(), name="x")
    await keys.revoke(made.id)
    with pytest.raises(ConflictError):
        await keys.update(made.id, name="y")
    with pytest.raises(ConflictError):
        await keys.rotate(made.id, secret=ids.api_key())
    with pytest.raises(NotFoundError):
        await keys.update(made.id, org="other", name="y")
    assert (await keys.retrieve(made.id)).name == "x"


async def test_many_keys_are_read_at_once(keys: KeyStore) -> None:
    made = [await keys.create(secret=ids.api_key(), name=f"k{i}", org=f"o{i}") for i in range(3)]
    found = await keys.retrieve_all([row.id for row in made] + [f"key_{i}" for i in range(1200)])
    assert found == {row.id: row for row in made}
    assert await keys.retrieve_all([]) == {}


@pytest.mark.parametrize("text", ["' OR '1'='1", "x'; DROP TABLE api_keys; --", '" OR 1=1', "%", "_", "\\"])
async def test_what_looks_like_sql_is_a_value(text: str, keys: KeyStore, teams: TeamStore) -> None:
    await keys.create(secret=ids.api_key(), name="x")
    assert await keys.find(text) is None
    assert await keys.find(ids.digest(text)) is None
    assert await keys.retrieve_all([text]) == {}
    assert (await keys.list(team=text)).rows == ()
    for lost in (keys.retrieve(text), keys.revoke(text), teams.retrieve(text, org="default")):
        with pytest.raises(NotFoundError):
            await lost
    made = await keys.create(secret=ids.api_key(), name=text, team=text, tags=[text])
    assert (await keys.retrieve(made.id)).tags == (text,)
    assert len((await keys.list()).rows) == 2
