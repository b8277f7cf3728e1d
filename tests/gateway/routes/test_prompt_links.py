"""Admins see which prompts of their organisation are synchronised with Langfuse, and decide on conflicts."""

import pytest
from tests.gateway.fakes import Client
from tests.gateway.routes.admin_api import BOSS, JSON, WORKER, ask

from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle
from quarterdeck.store.database import Database
from quarterdeck.store.orgs import DEFAULT_ORG
from quarterdeck.store.prompt_links import LinkedVersion, LinkRow, PromptLinkStore

PATH = "/admin/prompt_links"
CONFLICT = {"kind": "label", "subject": "production", "message": "both sides changed it"}


@pytest.fixture
async def link(database: Database) -> LinkRow:
    store = PromptLinkStore(database)
    link = await store.create(org=DEFAULT_ORG, project="proj_1", name="a/b")
    await store.save(link, origin="theirs", conflicts=[CONFLICT], labels={"production": 1})
    await store.pair(link, LinkedVersion(4, 1, "v_1"))
    return link


async def test_a_conflict_is_listed_shown_and_decided(app: RequestLifecycle, link: LinkRow) -> None:
    listed = await ask(app, "GET", PATH)
    assert [(each["name"], each["state"]) for each in listed["data"]] == [("a/b", "conflict")]
    shown = await ask(app, "GET", f"{PATH}/{link.id}")
    assert (shown["object"], shown["conflicts"]) == ("prompt.link", [CONFLICT])
    assert shown["versions"] == [{"ours": 1, "theirs": 4}]
    answer = await Client(app, key=BOSS).post(f"{PATH}/{link.id}", {"keep": "theirs"}, headers=JSON)
    assert (answer.status, answer.json["state"], answer.json["keep"]) == (200, "pending", "theirs")
    assert (await ask(app, "GET", f"{PATH}?name=other"))["data"] == []


async def test_only_admins_decide_and_only_for_a_side(app: RequestLifecycle, link: LinkRow) -> None:
    async def post(path: str, body: dict[str, str], key: str) -> int:
        return (await Client(app, key=key).post(path, body, headers=JSON)).status

    assert await post(f"{PATH}/{link.id}", {"keep": "ours"}, WORKER) == 403
    assert await post(f"{PATH}/{link.id}", {"keep": "both"}, BOSS) == 400
    assert await post(f"{PATH}/link_none", {"keep": "ours"}, BOSS) == 404
    assert await post(f"{PATH}/{link.id}?org=other", {"keep": "ours"}, BOSS) == 404
    assert (await ask(app, "GET", f"{PATH}/{link.id}"))["keep"] is None
