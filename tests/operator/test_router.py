"""Which objects are reconciled because of an event."""

from typing import Any

import pytest

from quarterdeck.operator.cache import ObjectCache
from quarterdeck.operator.event_log import EventLog
from quarterdeck.operator.manifests import Key
from quarterdeck.operator.router import Router

MODEL = {"quarterdeck.dev/model": "tiny"}


def made(
    kind: str, name: str = "x", labels: dict[str, str] | None = None, version: int = 1, **more: Any
) -> dict[str, Any]:
    metadata = {"name": name, "uid": f"{kind}-{name}", "resourceVersion": str(version), "labels": labels or {}}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **more}


class Routed:
    def __init__(self) -> None:
        self.keys: list[Key] = []
        self.published = self.gateways = 0
        self.cache, self.events = ObjectCache(), EventLog()
        self.router = Router(
            self.cache,
            self.events,
            gateway_service="gw",
            config_map="config",
            add=self.keys.append,
            publish=self._publish,
            on_gateways=self._gateways,
        )
        self.cache.on_change = self.router.on_change

    def _publish(self) -> None:
        self.published += 1

    def _gateways(self) -> None:
        self.gateways += 1


@pytest.mark.parametrize("kind", ["Deployment", "Service", "Pod", "PodDisruptionBudget", "ReplicaSet", "RayService"])
@pytest.mark.parametrize("type", [None, "ADDED", "MODIFIED", "DELETED"])
def test_a_change_of_a_models_object_reconciles_the_model(kind: str, type: str | None) -> None:
    routed = Routed()
    routed.router.take(None, made(kind, labels=MODEL))
    routed.keys.clear()
    routed.router.take(type, made(kind, labels=MODEL, version=2))
    assert Key("Model", "tiny") in routed.keys and routed.published == 0


def test_a_custom_resource_is_reconciled_and_compiled() -> None:
    routed = Routed()
    routed.router.take("ADDED", made("Model", "tiny"))
    routed.router.take("ADDED", made("ModelRoute", "chat"))
    assert {Key("Model", "tiny"), Key("ModelRoute", "chat")} <= set(routed.keys) and routed.published == 2


def test_what_is_not_ours_is_not_kept() -> None:
    routed = Routed()
    for kind in ("Deployment", "Pod", "Service", "ConfigMap", "EndpointSlice"):
        routed.router.take("ADDED", made(kind, "theirs", {"app": "web"}))
        assert routed.cache.get(kind, "theirs") is None
    assert routed.keys == []


def test_the_configuration_and_the_gateways_are_followed() -> None:
    routed = Routed()
    routed.router.take("MODIFIED", made("ConfigMap", "config"))
    routed.router.take("MODIFIED", made("EndpointSlice", "gw-1", {"kubernetes.io/service-name": "gw"}))
    assert (routed.published, routed.gateways) == (1, 1)


def test_an_event_about_a_models_pod_reconciles_the_model() -> None:
    routed = Routed()
    routed.router.take("ADDED", made("Pod", "p", MODEL))
    routed.keys.clear()
    routed.router.take("ADDED", made("Event", "e1", involvedObject={"uid": "Pod-p"}))
    routed.router.take("ADDED", made("Event", "e2", involvedObject={"uid": "unknown"}))
    routed.router.take("ADDED", made("Event", "e3"))
    assert routed.keys == [Key("Model", "tiny")]
