"""Ray Serve's details become the rows that the gateway polls."""

from collections.abc import Mapping
from typing import Any

from quarterdeck.engine.endpoints import DeployedModel, endpoint_rows, failure, last_line, replica_urls

CHAT = DeployedModel("org/chat", "org-chat-1a2b3c", "generate", 64, detail="waiting for deployment")


class FakeAdapters:
    """The same for every replica."""

    def __init__(self, loaded: Mapping[str, str] | None = None, failed: Mapping[str, str] | None = None) -> None:
        self._loaded, self._failed = loaded or {}, failed or {}

    def loaded(self, replica: str) -> Mapping[str, str]:
        return self._loaded

    def failures(self, model: str, replica: str) -> Mapping[str, str]:
        return self._failed


NONE = FakeAdapters()


def _replica(name: str, state: str = "RUNNING") -> dict[str, Any]:
    return {"replica_id": name, "actor_name": f"SERVE_REPLICA::org-chat-1a2b3c#{name}", "state": state}


def _details(*replicas: dict[str, Any], status: str = "RUNNING", message: str = "") -> dict[str, Any]:
    deployment = {"message": message, "replicas": list(replicas)}
    return {"applications": {CHAT.app: {"status": status, "message": "", "deployments": {"engine": deployment}}}}


def _group(*names: str) -> dict[str, Any]:
    targets = [{"ip": "10.0.0.7", "port": 30000 + n, "name": name} for n, name in enumerate(names)]
    return {"protocol": "HTTP", "route_prefix": "/org-chat-1a2b3c", "targets": targets}


def test_a_running_replica_is_ready_at_its_own_port() -> None:
    known = {"SERVE_REPLICA::org-chat-1a2b3c#a": "http://127.0.0.1:30000/org-chat-1a2b3c"}
    (row,) = endpoint_rows(
        [CHAT], _details(_replica("a")), known, FakeAdapters({"pirate": "pirate@1f"}, {"late": "no files"})
    )
    assert row.as_dict() == {
        "id": "org/chat#a",
        "model": "org/chat",
        "adapters": {"pirate": "pirate@1f"},
        "failed_adapters": {"late": "no files"},
        "version": "",
        "url": "http://127.0.0.1:30000/org-chat-1a2b3c",
        "state": "ready",
        "max_running": 64,
        "task": "generate",
        "detail": "",
    }


def test_a_stopping_replica_drains_at_the_port_it_had() -> None:
    known = {"SERVE_REPLICA::org-chat-1a2b3c#a": "http://h:1"}
    (row,) = endpoint_rows([CHAT], _details(_replica("a", "STOPPING")), known, NONE)
    assert (row.state, row.url) == ("draining", "http://h:1")


def test_one_that_stops_before_it_had_a_port_is_not_listed() -> None:
    (row,) = endpoint_rows([CHAT], _details(_replica("a", "STOPPING")), {}, NONE)
    assert (row.id, row.state) == ("org/chat", "starting")


def test_a_replica_without_a_port_is_still_starting() -> None:
    (row,) = endpoint_rows([CHAT], _details(_replica("a")), {}, NONE)
    assert (row.state, row.url) == ("starting", "")


def test_a_replica_that_lacks_an_adapter_is_still_starting() -> None:
    name = "SERVE_REPLICA::org-chat-1a2b3c#a"
    (row,) = endpoint_rows([CHAT], _details(_replica("a")), {name: "http://h:1"}, NONE, incomplete={name})
    assert (row.state, row.detail) == ("starting", "loading adapters")


def test_all_drain_when_the_door_does() -> None:
    known = {f"SERVE_REPLICA::org-chat-1a2b3c#{name}": "http://h:1" for name in "ab"}
    listed = endpoint_rows([CHAT], _details(_replica("a"), _replica("b", "STARTING")), known, NONE, is_draining=True)
    assert [row.state for row in listed] == ["draining", "starting"]


def test_a_model_without_a_replica_is_listed_once_with_its_progress() -> None:
    (row,) = endpoint_rows([CHAT], {}, {}, NONE)
    assert (row.id, row.state, row.url, row.detail) == ("org/chat", "starting", "", "waiting for deployment")


def test_a_failed_model_says_why() -> None:
    text = "Traceback:\n  File x\nValueError: no such quantization\n\nThe above exception ..."
    (row,) = endpoint_rows([CHAT], _details(status="DEPLOY_FAILED", message=text), {}, NONE)
    assert row.detail == "failed: ValueError: no such quantization"


def test_only_replicas_have_urls() -> None:
    details = {
        "target_groups": [_group("SERVE_REPLICA::x#a", "SERVE_PROXY_ACTOR-1"), {**_group("y"), "protocol": "gRPC"}]
    }
    assert replica_urls(details, None) == {"SERVE_REPLICA::x#a": "http://10.0.0.7:30000/org-chat-1a2b3c"}
    assert replica_urls(details, "127.0.0.1") == {"SERVE_REPLICA::x#a": "http://127.0.0.1:30000/org-chat-1a2b3c"}


def test_a_healthy_application_has_not_failed() -> None:
    assert failure(None) is None
    assert failure(_details()["applications"][CHAT.app]) is None


def test_the_line_that_says_what_went_wrong() -> None:
    assert last_line("a\nRuntimeError: x: y\n  at z\n") == "RuntimeError: x: y"
    pydantic = "E: 1 validation error for M\n  Value error, too long [type=value_error, input_value=1]\n    For further"
    assert last_line(pydantic) == "too long"
    assert last_line("only this\n") == "only this"
    assert last_line("") == "no reason given"
