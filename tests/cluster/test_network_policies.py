"""NetworkPolicies of the chart, tried by a pod that may not and by one with a gateway's labels."""

import json

import pytest
from tests.cluster.externals import SECURITY
from tests.cluster.kubectl import Kubectl, Object
from tests.cluster.release import Release

SECONDS = 180
"""How long rules may take to reach the node: its policies are written each second or two, later on a busy machine."""
TRY = """
import json, socket, sys, time

def state(target):
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
        return "open"
    except TimeoutError:
        return "closed"
    except OSError as error:
        return str(error)

seconds, opens, *targets = sys.argv[1:]
deadline = time.monotonic() + float(seconds)
found = {}
while time.monotonic() < deadline:
    found |= {target: state(target) for target in targets[:int(opens)] if found.get(target) != "open"}
    if list(found.values()).count("open") == int(opens):
        break
found |= {target: state(target) for target in targets[int(opens):]}
print(json.dumps(found))
"""
"""Tries until the targets that shall be open are: the rules are in force then. Only then are the others tried."""
MODEL = "guarded"


@pytest.fixture(scope="module")
def targets(release: Release, namespace: Kubectl, sign: str) -> dict[str, str]:
    """Addresses of the pods, by component, and the sign's."""
    release.apply_model(MODEL)
    release.wait_ready(MODEL)
    ports = {"gateway": 8000, "worker": 8012, "operator": 8013, "redis": 6379}
    pods = {name: namespace.select("pods", f"app.kubernetes.io/component={name}")[0] for name in ports}
    found = {name: f"{pods[name]['status']['podIP']}:{port}" for name, port in ports.items()}
    (engine,) = namespace.select("pods", f"quarterdeck.dev/model={MODEL}")
    return {**found, "engine": f"{engine['status']['podIP']}:8000", "sign": f"{sign}:8000"}


@pytest.fixture(scope="module")
def sign(namespace: Kubectl, images: dict[str, str]) -> str:
    """Address of a pod that admits pods with the label `try`. Who reaches it is known to the node's rules, and so are
    all pods and policies that are older."""
    label = {"matchLabels": {"try": "true"}}
    container = {
        "name": "sign",
        "image": images["gateway"],
        "securityContext": SECURITY,
        "command": ["python", "-m", "http.server", "8000", "--directory", "/opt"],
    }
    namespace.apply(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "sign"},
            "spec": {
                "podSelector": {"matchLabels": {"app": "sign"}},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"podSelector": label}]}],
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "sign", "labels": {"app": "sign"}},
            "spec": {"automountServiceAccountToken": False, "containers": [container]},
        },
    )
    address: str = namespace.wait_condition("pod", "sign", "Ready")["status"]["podIP"]
    return address


def tried(
    namespace: Kubectl, name: str, image: str, labels: dict[str, str], targets: dict[str, str], opens: set[str]
) -> set[str]:
    """Components that a pod with these labels reaches, besides the sign. `opens`: those that it shall reach; it waits
    for them and for the sign, and then tries the others."""
    awaited = opens | {"sign"}
    ordered = sorted(targets, key=lambda component: component not in awaited)
    addresses = [targets[component] for component in ordered]
    container = {
        "name": "try",
        "image": image,
        "securityContext": SECURITY,
        "command": ["python", "-c", TRY, str(SECONDS), str(len(awaited)), *addresses],
    }
    spec: Object = {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container]}
    metadata = {"name": name, "labels": {**labels, "try": "true"}}
    namespace.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    namespace.wait("pod", name, lambda one: (one or {}).get("status", {}).get("phase") == "Succeeded", "ended")
    reached = json.loads(namespace.logs(name))
    assert reached[targets["sign"]] == "open", "the rules for this pod are not in force"
    assert set(reached.values()) <= {"open", "closed"}, reached
    return {component for component, address in targets.items() if reached[address] == "open"} - {"sign"}


def test_a_stranger_reaches_the_gateway_and_nothing_else(
    namespace: Kubectl, images: dict[str, str], targets: dict[str, str]
) -> None:
    assert tried(namespace, "stranger", images["gateway"], {}, targets, {"gateway"}) == {"gateway"}


def test_a_gateway_reaches_redis_and_engines(
    namespace: Kubectl, images: dict[str, str], targets: dict[str, str], release: Release
) -> None:
    labels = {
        "app.kubernetes.io/name": "quarterdeck",
        "app.kubernetes.io/instance": release.name,
        "app.kubernetes.io/component": "gateway",
    }
    # it has no port named http, so the gateway's Service never sends it a request
    opens = {"gateway", "redis", "engine"}
    assert tried(namespace, "gateway-like", images["gateway"], labels, targets, opens) == opens


def test_an_engine_reaches_neither_redis_nor_another_models_engine(
    namespace: Kubectl, images: dict[str, str], targets: dict[str, str]
) -> None:
    labels = {"quarterdeck.dev/model": "other"}
    assert tried(namespace, "engine-like", images["gateway"], labels, targets, {"gateway"}) == {"gateway"}


def test_prometheus_reaches_all_metrics(
    namespace: Kubectl, images: dict[str, str], targets: dict[str, str], release: Release
) -> None:
    labels = {"app.kubernetes.io/name": "prometheus"}
    release.upgrade({"networkPolicy": {"prometheusFrom": [{"podSelector": {"matchLabels": labels}}]}})
    opens = targets.keys() - {"redis", "sign"}
    assert tried(namespace, "prometheus", images["gateway"], labels, targets, opens) == opens
