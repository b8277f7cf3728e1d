"""Keys and spend of Teams in their status, from a gateway's real admin API over a real database."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.gateway.fakes import FakePublisher, parts
from tests.operator.fake_cluster import FakeCluster

from quarterdeck import ids
from quarterdeck.gateway.app import create_app
from quarterdeck.kube.resources.team import TeamUsage
from quarterdeck.operator.cache import ObjectCache
from quarterdeck.operator.gateway_client import GatewayClient, GatewayError
from quarterdeck.operator.manifests import Manifest
from quarterdeck.operator.team_usage import TeamUsageWriter, usage_of
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore

KEY = "sk-qd-boss"


class Bench:
    def __init__(self, http: httpx.AsyncClient, key_file: Path, keys: KeyStore) -> None:
        self.keys = keys
        self.urls = ["http://gateway"]
        self.cluster, self.cache = FakeCluster(), ObjectCache()
        client = GatewayClient(http, lambda: self.urls, key_file)
        self.subject = TeamUsageWriter(self.cluster, self.cache, client, "ns")  # type: ignore[arg-type]

    def put(self, name: str, spec: Any = None, **more: Any) -> None:
        manifest = {
            "apiVersion": "quarterdeck.dev/v1alpha1",
            "kind": "Team",
            "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1},
            "spec": spec or {},
            **more,
        }
        self.cache.put(self.cluster.add(manifest))

    def status(self, name: str) -> Manifest:
        manifest = self.cache.get("Team", name)
        assert manifest is not None
        return dict(manifest.get("status") or {})


@pytest.fixture
async def bench(database: Database, tmp_path: Path) -> AsyncIterator[Bench]:
    keys = KeyStore(database)
    await keys.create(secret=KEY, name="boss", is_admin=True)
    (tmp_path / "key").write_text(KEY)
    app = create_app(parts(keys=keys, database=database, publisher=FakePublisher()))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app)) as http:  # type: ignore[arg-type]
        yield Bench(http, tmp_path / "key", keys)


async def test_a_team_shows_its_keys_beside_its_conditions(bench: Bench) -> None:
    for _ in range(3):
        await bench.keys.create(secret=ids.api_key(), name="x", team="research")
    revoked = await bench.keys.create(secret=ids.api_key(), name="old", team="research")
    await bench.keys.revoke(revoked.id)
    bench.put("research", status={"message": "Gateways have it."})
    await bench.subject.write_all()
    assert bench.status("research") == {"message": "Gateways have it.", "usage": {"keys": 3}}


async def test_what_has_not_changed_is_not_written(bench: Bench) -> None:
    await bench.keys.create(secret=ids.api_key(), name="x", team="research")
    bench.put("team-of-research", {"name": "research"})
    await bench.subject.write_all()
    await bench.subject.write_all()
    assert len(bench.cluster.writes) == 1


async def test_a_team_that_no_gateway_has_yet_is_left_alone(bench: Bench) -> None:
    bench.put("new")
    await bench.subject.write_all()
    assert bench.cluster.writes == []


async def test_a_gateway_away_is_an_error_that_is_tried_again(bench: Bench) -> None:
    bench.put("research")
    bench.urls.clear()
    with pytest.raises(GatewayError, match="no gateway is ready"):
        await bench.subject.write_all()


async def test_an_invalid_team_stops_no_other(bench: Bench) -> None:
    await bench.keys.create(secret=ids.api_key(), name="x", team="research")
    bench.put("broken", {"priority": "high"})
    bench.put("research")
    await bench.subject.write_all()
    assert bench.status("research") == {"usage": {"keys": 1}}


def test_spend_is_of_the_budgets_period() -> None:
    status = {"period_start": 1_767_225_600, "spent": "1.25", "held": "0.50", "left": "8.25", "is_counting": False}
    assert usage_of({"keys": 2, "budget_status": status}) == TeamUsage(
        keys=2, spent="1.25", left="8.25", period_start="2026-01-01T00:00:00Z"
    )
    for_ever = usage_of({"keys": 2, "budget_status": {**status, "period_start": None}})
    assert for_ever.period_start is None


@pytest.mark.parametrize("answer", [{}, {"keys": 1}, {"keys": 1, "budget_status": {}}])
def test_an_answer_of_something_else_is_refused(answer: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not a team"):
        usage_of(answer)
