"""Deletion of an organisation, on both databases."""

import asyncio

import pytest

from quarterdeck.errors import ConflictError, NotFoundError
from quarterdeck.settings.prompts import PromptSpec
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore
from quarterdeck.store.org_deletion import OrgDeletion
from quarterdeck.store.orgs import OrgStore
from quarterdeck.store.prompts import PromptStore
from quarterdeck.store.teams import TeamStore
from quarterdeck.store.webhooks import WebhookStore


async def test_keys_are_revoked_and_teams_prompts_and_webhooks_deleted(database: Database) -> None:
    keys, orgs = KeyStore(database), OrgStore(database)
    key = await keys.create(secret="sk-acme", name="a", org="acme", team="red")
    other = await keys.create(secret="sk-other", name="o", org="other")
    prompts, webhooks = PromptStore(database), WebhookStore(database)
    spec = PromptSpec(text="Hello")
    await prompts.create("greet", spec, org="acme", author=key.id)
    await webhooks.create(org="acme", name="w", url="https://x.example", secret="whsec_a", event_types=None, most=5)
    assert await OrgDeletion(database).delete("acme", revoke_keys=True, author=other.id) == [key.id]
    assert (await keys.retrieve(key.id, org="acme")).revoked is not None
    assert (await keys.retrieve(other.id, org="other")).revoked is None
    assert await TeamStore(database).list(org="acme", limit=9) == []
    assert await webhooks.subscribed_orgs("budget.exhausted") == []
    with pytest.raises(NotFoundError):
        await prompts.retrieve("greet", org="acme")
    with pytest.raises(NotFoundError):
        await orgs.retrieve("acme")
    assert (await orgs.retrieve("acme", with_deleted=True)).deleted is not None
    assert [row.id for row in await orgs.page()] == ["other"]
    assert await orgs.list() == ["acme", "other"]  # the worker still reads its last records


async def test_an_organisation_with_valid_keys_is_deleted_only_on_request(database: Database) -> None:
    keys = KeyStore(database)
    key = await keys.create(secret="sk-acme", name="a", org="acme")
    with pytest.raises(ConflictError, match="1 keys that are not revoked"):
        await OrgDeletion(database).delete("acme", revoke_keys=False, author="key_x")
    assert (await OrgStore(database).retrieve("acme")).deleted is None
    await keys.revoke(key.id, org="acme")
    assert await OrgDeletion(database).delete("acme", revoke_keys=False, author="key_x") == []


async def test_the_id_of_a_deleted_organisation_is_not_used_again(database: Database) -> None:
    orgs, keys = OrgStore(database), KeyStore(database)
    await orgs.create("acme")
    await OrgDeletion(database).delete("acme", revoke_keys=False, author="key_x")
    with pytest.raises(ConflictError, match="was deleted"):
        await orgs.create("acme")
    with pytest.raises(NotFoundError):
        await keys.create(secret="sk-late", name="late", org="acme")
    with pytest.raises(NotFoundError):
        await TeamStore(database).create("red", org="acme")
    with pytest.raises(NotFoundError):
        await OrgDeletion(database).delete("acme", revoke_keys=True, author="key_x")
    with pytest.raises(NotFoundError):
        await orgs.update("acme", content_days=1)


async def test_a_key_created_while_its_organisation_is_deleted_is_revoked_or_refused(database: Database) -> None:
    orgs, keys = OrgStore(database), KeyStore(database)
    for number in range(8):
        org = f"org-{number}"
        await orgs.create(org)
        results = await asyncio.gather(
            keys.create(secret=f"sk-{number}", name="k", org=org),
            OrgDeletion(database).delete(org, revoke_keys=True, author="key_x"),
            return_exceptions=True,
        )
        made, deleted = results
        assert not isinstance(deleted, BaseException)
        assert isinstance(made, NotFoundError) or (await keys.retrieve(made.id, org=org)).revoked is not None
