"""No request fails while the platform is changed under 20 requests a second, most of them streams.

Whatever is changed (engines, gateways, workers, the operator, Redis, the release), each request is answered whole, and
the ledger has what the clients counted.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.cluster import externals
from tests.cluster.kubectl import WAIT_S, Kubectl, KubectlError, Objects, is_ending
from tests.cluster.release import Release
from tests.cluster.traffic import Traffic

MODEL = "steady"
ARGS = {"time-to-first-token": "50ms", "inter-token-latency": "40ms"}
"""A stream of 40 tokens takes 1.6 s: 25 to 30 streams are under way at 20 requests a second."""
ENGINES = f"quarterdeck.dev/model={MODEL}"


def apply(platform: Release, replicas: int, **args: str) -> None:
    """The Model with this number of replicas and these arguments of its engine."""
    scaling = {"min": replicas, "max": replicas, "target": 64}
    platform.apply_model(MODEL, engine={"type": "sim", "args": {**ARGS, **args}}, scaling=scaling)


def part(name: str) -> str:
    return f"app.kubernetes.io/name=quarterdeck,app.kubernetes.io/component={name}"


def settled(platform: Release, selector: str, count: int) -> None:
    """Wait until there are `count` pods and none that ends."""

    def are_as_many(pods: Objects) -> bool:
        return len(pods) == count and not any(map(is_ending, pods.values()))

    platform.kubectl.wait_all("pods", selector, are_as_many, f"{count} pods and none that ends")


def evict(platform: Release, selector: str) -> None:
    """Evict one pod, as a node's drain does, and wait until it is gone. As a drain, it asks again while the disruption
    budget does not allow it: that follows the pods after a moment."""
    name = next(pod["metadata"]["name"] for pod in platform.kubectl.select("pods", selector) if not is_ending(pod))
    namespace = platform.kubectl.namespace
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
    path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            platform.kubectl("create", "--raw", path, "-f", "-", input=json.dumps(eviction))
            break
        except KubectlError as error:
            if "disruption budget" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(1)
    platform.kubectl.wait("pod", name, lambda pod: pod is None, "gone")


def restart(platform: Release, name: str, count: int) -> None:
    """Roll a Deployment out and wait until its old pods are gone."""
    platform.kubectl("rollout", "restart", f"deployment/qd-{name}")
    platform.kubectl.rolled_out("deployment", f"qd-{name}")
    settled(platform, part(name), count)


def steady_traffic(platform: Release, traffic: Callable[..., Traffic]) -> Iterator[Traffic]:
    """Traffic whose counts are compared with the ledger's at the end."""
    running = traffic(platform, MODEL, rate=20)
    yield running
    running.stop()
    running.assert_no_errors()
    wanted = running.totals()
    found = platform.wait_ledger(running.key_id, wanted["requests"])
    assert {name: found[name] for name in wanted} == wanted, found


@pytest.fixture(scope="module")
def platform(make_release: Callable[..., Release], namespace: Kubectl) -> Release:
    """The chart with its default values: one of each, SQLite."""
    release = make_release(namespace=namespace)
    apply(release, 2)
    release.wait_replicas(MODEL, 2)
    return release


@pytest.fixture
def steady(platform: Release, traffic: Callable[..., Traffic]) -> Iterator[Traffic]:
    yield from steady_traffic(platform, traffic)


def test_engines_scaled_up_and_down_rolled_out_and_evicted_lose_nothing(platform: Release, steady: Traffic) -> None:
    with steady.around("scale up") as up:
        apply(platform, 3)
        platform.wait_replicas(MODEL, 3)
    up.assert_no_errors()
    with steady.around("scale down") as down:
        apply(platform, 1)
        platform.wait_replicas(MODEL, 1)
        settled(platform, ENGINES, 1)
    down.assert_no_errors()
    with steady.around("rollout of new arguments") as rollout:
        apply(platform, 2, seed="7")
        platform.wait_replicas(MODEL, 2)
        settled(platform, ENGINES, 2)
    rollout.assert_no_errors()
    with steady.around("eviction of an engine") as eviction:
        evict(platform, ENGINES)
        platform.wait_replicas(MODEL, 2)
    eviction.assert_no_errors()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) for name in ("gateway", "worker", "operator")]
)
def test_a_rollout_of_each_part_loses_nothing(platform: Release, steady: Traffic, name: str) -> None:
    with steady.around(f"rollout of the {name}") as window:
        restart(platform, name, 1)
    window.assert_no_errors()


def test_a_worker_and_an_operator_that_are_killed_lose_nothing(platform: Release, steady: Traffic) -> None:
    with steady.around("kill") as window:
        for name in ("worker", "operator"):
            platform.kubectl("delete", "pods", "--selector", part(name), "--force", "--grace-period=0")
        for name in ("worker", "operator"):
            settled(platform, part(name), 1)
            platform.kubectl.rolled_out("deployment", f"qd-{name}")
    window.assert_no_errors()


def test_an_upgrade_of_the_release_and_a_restart_of_redis_lose_nothing(platform: Release, steady: Traffic) -> None:
    changed = {"podAnnotations": {"changed": str(time.time())}}
    with steady.around("helm upgrade") as window:
        platform.upgrade(dict.fromkeys(("gateway", "worker", "operator", "redis"), changed))
        for name in ("gateway", "worker", "operator", "redis"):
            settled(platform, part(name), 1)
    window.assert_no_errors()


@pytest.fixture(scope="module")
def pair(
    make_release: Callable[..., Release],
    make_namespace: Callable[..., Kubectl],
    images: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Release:
    """Two of each, with PostgreSQL and Redis elsewhere."""
    namespace = make_namespace("zero-loss-ha")
    externals.postgres(namespace, images["postgres"])
    externals.redis(namespace, images["redis"], Path(tmp_path_factory.mktemp("tls")))
    values = {
        "gateway": {"replicas": 2},
        "worker": {"replicas": 2},
        "operator": {"replicas": 2},
        "redis": {"enabled": False, "external": {"existingSecret": "redis-url"}},
        "database": {"existingSecret": "postgres-url"},
    }
    release = make_release(values, namespace=namespace)
    apply(release, 2)
    release.wait_replicas(MODEL, 2)
    return release


@pytest.fixture
def pair_steady(pair: Release, traffic: Callable[..., Traffic]) -> Iterator[Traffic]:
    yield from steady_traffic(pair, traffic)


def test_a_drain_that_evicts_each_part_in_turn_loses_nothing(pair: Release, pair_steady: Traffic) -> None:
    for name in ("gateway", "worker", "operator"):
        with pair_steady.around(f"eviction of a {name}") as window:
            evict(pair, part(name))
            pair.kubectl.rolled_out("deployment", f"qd-{name}")
        window.assert_no_errors()


@pytest.mark.long
def test_a_rollout_of_two_gateways_loses_nothing(pair: Release, pair_steady: Traffic) -> None:
    with pair_steady.around("rollout of two gateways") as window:
        restart(pair, "gateway", 2)
    window.assert_no_errors()
