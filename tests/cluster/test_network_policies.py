"""NetworkPolicies of the chart, tried by a pod that may not and by one with a gateway's labels."""

import json

import pytest
from tests.cluster.externals import SECURITY
from tests.cluster.kubectl import Kubectl, Object
from tests.cluster.release import Release

TRY = """
import json, socket, sys
found = {}
for target in sys.argv[1:]:
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
        found[target] = "open"
    except TimeoutError:
        found[target] = "closed"
    except OSError as error:
        found[target] = str(error)
print(json.dumps(found))
"""
MODEL = "guarded"


@pytest.fixture(scope="module")
def targets(release: Release, namespace: Kubectl) -> dict[str, str]:
    """Addresses of the pods, by component."""
    release.apply_model(MODEL)
    release.wait_ready(MODEL)
    ports = {"gateway": 8000, "worker": 8012, "operator": 8013, "redis": 6379}
    pods = {name: namespace.select("pods", f"app.kubernetes.io/component={name}")[0] for name in ports}
    found = {name: f"{pods[name]['status']['podIP']}:{port}" for name, port in ports.items()}
    (engine,) = namespace.select("pods", f"quarterdeck.dev/model={MODEL}")
    return {**found, "engine": f"{engine['status']['podIP']}:8000"}


def tried(namespace: Kubectl, name: str, image: str, labels: dict[str, str], targets: dict[str, str]) -> dict[str, str]:
    """What a pod with these labels reaches, by component."""
    container = {
        "name": "try",
        "image": image,
        "securityContext": SECURITY,
        "command": ["python", "-c", TRY, *targets.values()],
    }
    spec: Object = {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container]}
    spec["initContainers"] = [
        # the policy engine of the test cluster writes a new pod's rules within two seconds
        {**container, "name": "settle", "command": ["sleep", "4"]}
    ]
    namespace.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec})
    namespace.wait("pod", name, lambda one: (one or {}).get("status", {}).get("phase") == "Succeeded", "ended")
    reached = json.loads(namespace.logs(name, "--container=try"))
    return {component: reached[address] for component, address in targets.items()}


def test_a_stranger_reaches_the_gateway_and_nothing_else(
    namespace: Kubectl, images: dict[str, str], targets: dict[str, str]
) -> None:
    reached = tried(namespace, "stranger", images["gateway"], {}, targets)
    assert reached == {
        "gateway": "open",
        "worker": "closed",
        "operator": "closed",
        "redis": "closed",
        "engine": "closed",
    }


def test_a_gateway_reaches_redis_and_engines(
    namespace: Kubectl, images: dict[str, str], targets: dict[str, str], release: Release
) -> None:
    labels = {
        "app.kubernetes.io/name": "quarterdeck",
        "app.kubernetes.io/instance": release.name,
        "app.kubernetes.io/component": "gateway",
        "try": "true",
    }
    # it has no port named http, so the gateway's Service never sends it a request
    reached = tried(namespace, "gateway-like", images["gateway"], labels, targets)
    assert reached["redis"] == reached["engine"] == "open"
    assert reached["worker"] == reached["operator"] == "closed"


def test_an_engine_reaches_neither_redis_nor_another_models_engine(
    namespace: Kubectl, images: dict[str, str], targets: dict[str, str]
) -> None:
    reached = tried(namespace, "engine-like", images["gateway"], {"quarterdeck.dev/model": "other"}, targets)
    assert reached["redis"] == reached["engine"] == reached["worker"] == "closed"


def test_prometheus_reaches_all_metrics(
    namespace: Kubectl, images: dict[str, str], targets: dict[str, str], make_namespace: object, release: Release
) -> None:
    labels = {"app.kubernetes.io/name": "prometheus"}
    release.upgrade({"networkPolicy": {"prometheusFrom": [{"podSelector": {"matchLabels": labels}}]}})
    reached = tried(namespace, "prometheus", images["gateway"], labels, targets)
    assert reached == {**dict.fromkeys(targets, "open"), "redis": "closed"}
