"""The door of a Ray cluster that KubeRay started: what it lists, and how it drains."""

from typing import Any

import httpx
import pytest

from quarterdeck.engine.kuberay.app import App
from quarterdeck.engine.kuberay.door import ObservingDoor, served_models
from quarterdeck.errors import EngineUnavailableError
from quarterdeck.kube.serve_application import IMPORT_PATH

URL = "http://10.0.0.7:30000"
REPLICA = "SERVE_REPLICA::engine#engine#a"


def _details(
    state: str = "RUNNING", *, status: str = "RUNNING", has_adapters: bool = False, message: str = ""
) -> dict[str, Any]:
    """As Ray 2.60's dashboard answers, without what the door does not read."""
    args = {"model": "org/chat", "has_adapters": has_adapters, "app": {"factory": "a:b", "options": {}}}
    config = {
        "name": "engine",
        "import_path": IMPORT_PATH,
        "args": args,
        "deployments": [{"name": "engine", "num_replicas": 1, "max_ongoing_requests": 8}],
    }
    replica = {"replica_id": "a", "actor_name": REPLICA, "state": state, "node_ip": "10.0.0.7"}
    app = {
        "status": status,
        "message": message,
        "deployed_app_config": config,
        "deployments": {"engine": {"message": "", "replicas": [replica] if state else []}},
    }
    target = {"ip": "10.0.0.7", "port": 30000, "name": REPLICA}
    group = {"protocol": "HTTP", "route_prefix": "/", "targets": [target] if state == "RUNNING" else []}
    return {"applications": {"engine": app}, "target_groups": [group]}


class FakeServe:
    """Answers with the details that a test sets."""

    def __init__(self, details: dict[str, Any]) -> None:
        self.now: dict[str, Any] | None = details

    async def details(self) -> dict[str, Any]:
        if self.now is None:
            raise EngineUnavailableError("Ray's dashboard: no answer")
        return self.now


class FakeReplicas:
    def __init__(self, active: int = 0, adapters: list[str] | None = None) -> None:
        self.active, self.listed = active, adapters

    async def active_requests(self, url: str) -> int:
        assert url == URL
        return self.active

    async def adapters(self, url: str) -> list[str]:
        if self.listed is None:
            raise EngineUnavailableError("gone")
        return self.listed


async def test_a_running_replica_is_listed_at_its_pod_with_the_limit_of_the_serve_config() -> None:
    door = ObservingDoor(FakeServe(_details()), FakeReplicas())
    assert door.endpoints() == []
    await door.poll()
    (row,) = door.endpoints()
    assert (row.id, row.model, row.url, row.state, row.max_running) == ("org/chat#a", "org/chat", URL, "ready", 8)


async def test_a_replica_that_serve_moves_or_stops_drains_at_its_last_known_port() -> None:
    serve = FakeServe(_details())
    door = ObservingDoor(serve, FakeReplicas())
    await door.poll()
    for state in ("PENDING_MIGRATION", "STOPPING"):
        serve.now = _details(state)
        await door.poll()
        (row,) = door.endpoints()
        assert (row.state, row.url) == ("draining", URL)


async def test_replicas_stay_listed_while_the_dashboard_is_away() -> None:
    serve = FakeServe(_details())
    door = ObservingDoor(serve, FakeReplicas())
    await door.poll()
    serve.now = None
    await door.poll()
    assert not door.is_healthy
    assert [row.state for row in door.endpoints()] == ["ready"]


async def test_a_failed_application_says_why() -> None:
    details = _details("", status="DEPLOY_FAILED", message="Traceback …\nValueError: no such option 'x'")
    door = ObservingDoor(FakeServe(details), FakeReplicas())
    await door.poll()
    (row,) = door.endpoints()
    assert (row.state, row.detail) == ("starting", "failed: ValueError: no such option 'x'")


async def test_adapters_are_those_that_a_replica_lists_itself() -> None:
    replicas = FakeReplicas(adapters=["pirate@1f", "plain"])
    door = ObservingDoor(FakeServe(_details(has_adapters=True)), replicas)
    await door.poll()
    assert door.endpoints()[0].adapters == {"pirate": "pirate@1f", "plain": "plain"}
    replicas.listed = None
    await door.poll()
    assert door.endpoints()[0].adapters == {"pirate": "pirate@1f", "plain": "plain"}


async def test_a_draining_door_lists_no_ready_endpoint_and_counts_active_requests() -> None:
    replicas = FakeReplicas(active=3)
    door = ObservingDoor(FakeServe(_details()), replicas)
    await door.poll()
    assert await door.drain() == 3
    assert [row.state for row in door.endpoints()] == ["draining"]
    replicas.active = 0
    assert await door.drain() == 0


@pytest.mark.parametrize(
    "config",
    [None, {"import_path": "other:app", "args": {}}, {"import_path": IMPORT_PATH, "args": {"model": "m"}}],
)
def test_applications_that_are_not_ours_are_left_out(config: dict[str, Any] | None) -> None:
    details = _details()
    details["applications"]["engine"]["deployed_app_config"] = config
    assert served_models(details) == []


@pytest.mark.parametrize(("client", "status"), [("127.0.0.1", 200), ("10.0.0.9", 403)])
async def test_only_the_pod_itself_may_drain(client: str, status: int) -> None:
    door = ObservingDoor(FakeServe(_details()), FakeReplicas())
    await door.poll()
    transport = httpx.ASGITransport(App(door), client=(client, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://door") as http:
        answer = await http.post("/drain")
        listed = (await http.get("/endpoints")).json()["endpoints"]
    assert answer.status_code == status
    assert listed[0]["state"] == ("draining" if status == 200 else "ready")


async def test_a_probe_succeeds_while_the_dashboard_is_away_because_replicas_still_serve() -> None:
    door = ObservingDoor(FakeServe(_details()), FakeReplicas())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(App(door)), base_url="http://door") as http:
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/nowhere")).status_code == 404
        assert (await http.post("/endpoints")).status_code == 405


@pytest.mark.parametrize("state", ["STARTING", "RUNNING", "STOPPING"])
async def test_a_node_is_in_use_as_long_as_serve_has_a_replica_on_it_in_any_state(state: str) -> None:
    serve = FakeServe(_details(state))
    door = ObservingDoor(serve, FakeReplicas())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(App(door)), base_url="http://door") as http:
        assert (await http.get("/nodes")).json() == {"in_use": []}
        await door.poll()
        assert (await http.get("/nodes")).json() == {"in_use": ["10.0.0.7"]}
        serve.now = _details("")
        await door.poll()
        assert (await http.get("/nodes")).json() == {"in_use": []}
