"""No request fails while the platform is changed under 20 requests a second, most of them streams.

Whatever is changed (engines, gateways, workers, the operator, the release), each request is answered whole, and the
ledger has what the clients counted.
"""

from collections.abc import Callable, Iterator

import pytest
from tests.cluster.kubectl import Kubectl, Object
from tests.cluster.release import Release
from tests.cluster.traffic import Traffic

MODEL = "steady"
ENGINE: dict[str, object] = {"args": {"time-to-first-token": "50ms", "inter-token-latency": "40ms"}}
"""A stream of 40 tokens takes 1.6 s: 25 to 30 streams are under way at 20 requests a second."""


@pytest.fixture(scope="module")
def platform(make_release: Callable[..., Release], namespace: Kubectl) -> Release:
    """The default release with a Model of two replicas."""
    release = make_release(namespace=namespace)
    release.apply_model(MODEL, engine={"type": "sim", **ENGINE}, scaling={"min": 2, "max": 4, "target": 64})
    release.wait_ready(MODEL)
    return release


@pytest.fixture
def steady(platform: Release, traffic: Callable[..., Traffic]) -> Iterator[Traffic]:
    """Traffic whose counts are compared with the ledger's at the end."""
    running = traffic(platform, MODEL, rate=20)
    yield running
    running.stop()
    wanted = running.totals()
    found = platform.wait_ledger(running.key_id, wanted["requests"])
    assert {name: found[name] for name in wanted} == wanted, found


def pods(platform: Release, component: str) -> list[Object]:
    return platform.kubectl.select("pods", f"app.kubernetes.io/component={component}")


def test_a_scale_down_of_engines_loses_nothing(platform: Release, steady: Traffic) -> None:
    with steady.around("scale up") as up:
        platform.apply_model(MODEL, engine={"type": "sim", **ENGINE}, scaling={"min": 3, "max": 4, "target": 64})
        platform.wait_replicas(MODEL, 3)
    up.assert_no_errors()
    with steady.around("scale down") as down:
        platform.apply_model(MODEL, engine={"type": "sim", **ENGINE}, scaling={"min": 1, "max": 1, "target": 64})
        platform.wait_replicas(MODEL, 1)
    down.assert_no_errors()


def test_a_rollout_of_gateways_loses_nothing(platform: Release, steady: Traffic) -> None:
    with steady.around("gateway rollout") as window:
        platform.kubectl("rollout", "restart", "deployment/qd-gateway")
        platform.kubectl.rolled_out("deployment", "qd-gateway")
    window.assert_no_errors()
