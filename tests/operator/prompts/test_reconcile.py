"""Prompt objects against a gateway's real `/v1/prompts` over a real database."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.gateway.fakes import FakePublisher, parts
from tests.operator.fake_cluster import FakeCluster

from quarterdeck.gateway.app import create_app
from quarterdeck.operator.cache import ObjectCache
from quarterdeck.operator.manifests import Manifest
from quarterdeck.operator.prompts.client import PromptClient
from quarterdeck.operator.prompts.reconcile import RESYNC_SECONDS, RETRY_SECONDS, PromptReconciler
from quarterdeck.operator.prompts.record import PromptRecord
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore

KEY = "sk-qd-boss"


class Mirror:
    """An operator's part for prompts, a cluster in memory, and a gateway."""

    def __init__(self, http: httpx.AsyncClient, key_file: Path) -> None:
        self.http = http
        self.urls = ["http://gateway"]
        self.cluster = FakeCluster()
        self.cache = ObjectCache()
        self.client = PromptClient(http, lambda: self.urls, key_file)
        self.reconciler = self.make()

    def make(self) -> PromptReconciler:
        """A new operator process."""
        record = PromptRecord(self.cluster, "ns", "qd-config-prompts", lambda: None)  # type: ignore[arg-type]
        return PromptReconciler(self.cluster, self.cache, self.client, record, "ns", now=lambda: "2026-01-01T00:00:00Z")  # type: ignore[arg-type]

    def put(self, name: str, /, created: str = "2026-01-01T00:00:00Z", **spec: Any) -> None:
        manifest = self.cluster.add(
            {
                "apiVersion": "quarterdeck.dev/v1alpha1",
                "kind": "Prompt",
                "metadata": {"name": name, "creationTimestamp": created, "generation": 1},
                "spec": spec,
            }
        )
        self.cache.put(manifest)

    def remove(self, name: str) -> None:
        manifest = self.cache.get("Prompt", name)
        assert manifest is not None
        self.cache.remove(manifest)

    async def get(self, path: str) -> Any:
        answer = await self.http.get(f"http://gateway{path}", headers={"authorization": f"Bearer {KEY}"})
        return answer.json()

    def status(self, name: str) -> Manifest:
        manifest = self.cache.get("Prompt", name)
        assert manifest is not None
        status: Manifest = manifest["status"]
        return status

    def condition(self, name: str, kind: str) -> tuple[str, str]:
        found = next(each for each in self.status(name)["conditions"] if each["type"] == kind)
        return found["status"], found["reason"]


@pytest.fixture
async def mirror(database: Database, tmp_path: Path) -> AsyncIterator[Mirror]:
    store = KeyStore(database)
    await store.create(secret=KEY, name="boss", is_admin=True)
    key_file = tmp_path / "key"
    key_file.write_text(KEY + "\n")
    app = create_app(parts(keys=store, database=database, publisher=FakePublisher()))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app)) as http:  # type: ignore[arg-type]
        yield Mirror(http, key_file)


async def test_an_object_becomes_a_prompt_and_its_changes_versions(mirror: Mirror) -> None:
    mirror.put("greet", text="Hello {{ name }}", name="team/greet", labels=["production"], description="d")
    assert await mirror.reconciler.reconcile("greet") == RESYNC_SECONDS
    (made,) = (await mirror.get("/v1/prompts?name=team/greet"))["data"]
    assert (made["latest_version"], made["labels"], made["description"]) == (1, {"production": {"version": 1}}, "d")
    assert mirror.status("greet")["version"] == 1
    assert mirror.condition("greet", "Ready") == ("True", "Ready")

    writes = len(mirror.cluster.writes)
    await mirror.reconciler.reconcile("greet")
    assert len(mirror.cluster.writes) == writes  # nothing changed, nothing is written

    mirror.put("greet", text="Hi {{ name }}", name="team/greet", labels=["production"], teams=["red"])
    await mirror.reconciler.reconcile("greet")
    (made,) = (await mirror.get("/v1/prompts?name=team/greet"))["data"]
    assert (made["latest_version"], made["labels"], made["teams"]) == (2, {"production": {"version": 2}}, ["red"])
    assert mirror.status("greet")["version"] == 2
    events = (await mirror.get(f"/v1/prompts/{made['id']}/versions"))["data"]
    assert events[0]["message"] == "Prompt greet, generation 1"


async def test_what_was_changed_elsewhere_is_taken_back(mirror: Mirror) -> None:
    mirror.put("greet", text="Hello", labels=["production"])
    await mirror.reconciler.reconcile("greet")
    headers = {"authorization": f"Bearer {KEY}"}
    body = {"text": "by hand", "labels": ["production"]}
    await mirror.http.post("http://gateway/v1/prompts/greet/versions", json=body, headers=headers)
    await mirror.reconciler.reconcile("greet")
    version = await mirror.get("/v1/prompts/greet/versions/latest")
    assert (version["version"], version["text"]) == (3, "Hello")
    assert (await mirror.get("/v1/prompts/greet"))["labels"]["production"] == {"version": 3}


async def test_the_prompt_of_a_deleted_object_is_archived_and_can_come_back(mirror: Mirror) -> None:
    mirror.put("greet", text="Hello", labels=["production"])
    await mirror.reconciler.reconcile("greet")
    mirror.remove("greet")
    assert await mirror.reconciler.reconcile("greet") is None
    assert (await mirror.get("/v1/prompts/greet"))["archived"] is not None
    mirror.put("greet", text="Hello", labels=["production"])
    await mirror.reconciler.reconcile("greet")
    assert (await mirror.get("/v1/prompts/greet"))["archived"] is None


async def test_an_object_that_was_deleted_while_no_operator_ran_is_noticed_by_the_next_one(mirror: Mirror) -> None:
    mirror.put("greet", text="Hello")
    mirror.put("stay", text="Hello")
    await mirror.reconciler.reconcile("greet")
    await mirror.reconciler.reconcile("stay")
    mirror.remove("greet")
    assert await mirror.make().reconcile("") is None
    assert (await mirror.get("/v1/prompts/greet"))["archived"] is not None
    assert (await mirror.get("/v1/prompts/stay"))["archived"] is None


async def test_of_two_objects_with_one_name_the_older_one_is_mirrored(mirror: Mirror) -> None:
    mirror.put("young", created="2026-01-02T00:00:00Z", text="young", name="greet")
    mirror.put("old", text="old", name="greet")
    assert await mirror.reconciler.reconcile("young") == RETRY_SECONDS
    await mirror.reconciler.reconcile("old")
    assert (await mirror.get("/v1/prompts/greet/versions/latest"))["text"] == "old"
    assert mirror.condition("young", "Ready") == ("False", "NameConflict")
    assert mirror.status("young")["message"] == "the name 'greet' belongs to Prompt old"
    mirror.remove("old")
    await mirror.reconciler.reconcile("old")
    await mirror.reconciler.reconcile("young")
    assert (await mirror.get("/v1/prompts/greet/versions/latest"))["text"] == "young"
    assert (await mirror.get("/v1/prompts/greet"))["archived"] is None


async def test_a_template_that_the_platform_refuses_is_reported_and_takes_nothing(mirror: Mirror) -> None:
    mirror.put("greet", text="Hello {{ name")
    assert await mirror.reconciler.reconcile("greet") == RESYNC_SECONDS
    assert mirror.condition("greet", "Accepted") == ("False", "InvalidSpec")
    assert mirror.condition("greet", "Ready") == ("False", "InvalidSpec")
    assert (await mirror.get("/v1/prompts"))["data"] == []


async def test_a_prompt_made_by_others_is_not_archived_for_an_object_that_was_refused(mirror: Mirror) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    await mirror.http.post("http://gateway/v1/prompts", json={"name": "greet", "text": "mine"}, headers=headers)
    mirror.put("greet", text="Hello {{ name")
    await mirror.reconciler.reconcile("greet")
    mirror.remove("greet")
    await mirror.reconciler.reconcile("greet")
    assert (await mirror.get("/v1/prompts/greet"))["archived"] is None


async def test_an_unreachable_gateway_is_reported_and_tried_again(mirror: Mirror) -> None:
    mirror.urls = []
    mirror.put("greet", text="Hello")
    assert await mirror.reconciler.reconcile("greet") == RETRY_SECONDS
    assert mirror.condition("greet", "Accepted") == ("True", "Accepted")
    assert mirror.condition("greet", "Synced") == ("False", "GatewayUnreachable")
    mirror.urls = ["http://gateway"]
    assert await mirror.reconciler.reconcile("greet") == RESYNC_SECONDS
    assert mirror.condition("greet", "Ready") == ("True", "Ready")


async def test_an_archive_that_no_gateway_makes_is_tried_again(mirror: Mirror) -> None:
    mirror.put("greet", text="Hello")
    await mirror.reconciler.reconcile("greet")
    mirror.remove("greet")
    mirror.urls = []
    assert await mirror.reconciler.reconcile("greet") == RETRY_SECONDS
    mirror.urls = ["http://gateway"]
    assert await mirror.reconciler.reconcile("greet") is None
    assert (await mirror.get("/v1/prompts/greet"))["archived"] is not None


async def test_a_key_that_the_gateway_refuses_is_reported(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-qd-wrong")
    mirror.put("greet", text="Hello")
    assert await mirror.reconciler.reconcile("greet") == RETRY_SECONDS
    assert mirror.condition("greet", "Synced") == ("False", "SyncFailed")


async def test_an_object_that_cant_be_read_is_reported(mirror: Mirror) -> None:
    mirror.put("greet", text="a", messages=[])
    await mirror.reconciler.reconcile("greet")
    assert mirror.condition("greet", "Accepted") == ("False", "InvalidSpec")


async def test_a_null_default_makes_a_variable_optional(mirror: Mirror) -> None:
    mirror.put("greet", text="Hello {{ name }}", variables={"name": {"default": None}})
    await mirror.reconciler.reconcile("greet")
    version = await mirror.get("/v1/prompts/greet/versions/latest")
    assert "default" in version["variables"]["name"]
