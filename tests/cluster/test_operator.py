"""The operator on a real API server, with simulated engines in real pods on the Deployment backend."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.cluster.api_proxy import ApiProxy, is_step
from tests.cluster.kubectl import Kubectl, KubectlError, condition_of, is_current, is_ending
from tests.cluster.operator_process import OperatorProcess
from tests.cluster.provision import Provisioned

pytestmark = pytest.mark.usefixtures("crds")

Start = Callable[..., OperatorProcess]


@pytest.fixture
def start(
    cluster: Provisioned, namespace: Kubectl, build_images: Callable[..., dict[str, str]], tmp_path: Path
) -> Iterator[Start]:
    """Start an operator for the module's namespace; the Models of a test go with it."""
    image = build_images("simulator")["simulator"]
    running: list[OperatorProcess] = []

    def begin(name: str = "operator", *, wait: bool = True, config: Any = None, **options: Any) -> OperatorProcess:
        settings = {"images": {"sim": image}, "backend": "Deployment", "pod": {"simCpu": "10m"}, **(config or {})}
        process = OperatorProcess(cluster.environ, namespace.namespace, tmp_path, settings, name=name, **options)
        running.append(process.start())
        if wait:
            process.wait_ready()
            process.wait(lambda: process.is_leader, "the leader")
        return process

    yield begin
    for process in running:
        process.kill()
    namespace("delete", "models,modelroutes,teams", "--all")
    namespace("delete", "leases,configmaps", "--field-selector=metadata.name!=kube-root-ca.crt")


def model(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "quarterdeck.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": name},
        "spec": {"engine": {"type": "sim"}, "backend": "Deployment", "rollout": {"drainSeconds": 5}, **spec},
    }


def reason_of(one: dict[str, Any] | None, kind: str = "Ready") -> str:
    found = condition_of(one, kind)
    return found["reason"] if found and is_current(one) else ""


def published(namespace: Kubectl) -> set[str]:
    """Names of the models that gateways have."""
    found = namespace.get("configmap", "quarterdeck-config")
    data = (found or {}).get("data") or {}
    return {each["name"] for each in json.loads(data.get("quarterdeck.yaml", "{}")).get("models", ())}


def wait_engine_state(namespace: Kubectl, name: str, state: str) -> None:
    """Wait until gateways are told of an engine's state: it is published beside the Model's status."""

    def is_published(found: dict[str, Any] | None) -> bool:
        index = json.loads(((found or {}).get("data") or {}).get("engines.json", "{}"))
        return bool(index.get("engines", {}).get(name, {}).get("state", "Starting") == state)

    namespace.wait("configmap", "quarterdeck-config", is_published, f"{name} {state}")


def chat(namespace: Kubectl, name: str) -> str:
    """An answer of one of the Model's pods that are ready."""
    pods = namespace.select("pods", f"quarterdeck.dev/model={name}")
    ready = [pod for pod in pods if not is_ending(pod) and (condition_of(pod, "Ready") or {}).get("status") == "True"]
    address = ready[0]["status"]["podIP"]
    body = {"model": name, "messages": [{"role": "user", "content": "hello"}]}
    answer = httpx.post(f"http://{address}:8000/v1/chat/completions", json=body, timeout=120)
    answer.raise_for_status()
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


def end_state(namespace: Kubectl, name: str) -> dict[str, Any]:
    """What a Model's objects say, without what differs between two runs."""
    found: dict[str, Any] = {}
    for kind in ("deployment", "service", "poddisruptionbudget"):
        one = namespace.get(kind, f"model-{name}")
        assert one is not None
        spec = json.loads(json.dumps(one["spec"]).replace(name, "NAME"))
        for field in ("clusterIP", "clusterIPs"):
            spec.pop(field, None)
        # A hash of the template, in which the name is.
        spec.get("template", {}).get("metadata", {}).get("labels", {}).pop("quarterdeck.dev/revision", None)
        found[kind] = spec
    one = namespace.get("model", name)
    assert one is not None
    conditions = {each["type"]: (each["status"], each["reason"]) for each in one["status"]["conditions"]}
    found["status"] = {"conditions": conditions, "state": one["status"]["state"], "plan": one["status"]["plan"]}
    return found


def test_the_life_of_a_model(start: Start, namespace: Kubectl) -> None:
    operator = start()
    namespace.apply(model("tiny", scaling={"min": 1, "max": 3}))
    found = namespace.wait_condition("model", "tiny", "Ready")
    assert found["status"]["state"] == "Serving" and published(namespace) == {"tiny"}
    assert chat(namespace, "tiny")
    header, row = namespace.table("models")
    assert dict(zip(header, row, strict=False))["READY"] == "True"
    pods = {pod["metadata"]["uid"] for pod in namespace.select("pods", "quarterdeck.dev/model=tiny")}

    # In place: the engine does not restart, gateways get the new price.
    namespace.patch("model", "tiny", {"spec": {"price": {"input": "0.5"}}})
    namespace.wait("model", "tiny", lambda one: is_current(one) and one["status"]["plan"]["edit"] == "InPlace")
    namespace.wait(
        "configmap", "quarterdeck-config", lambda one: '"0.5"' in one["data"]["quarterdeck.yaml"], "the new price"
    )
    assert {pod["metadata"]["uid"] for pod in namespace.select("pods", "quarterdeck.dev/model=tiny")} == pods

    # An engine restart: one replica is ready before the other ends.
    namespace.patch("model", "tiny", {"spec": {"context": 2048}})
    namespace.wait("model", "tiny", lambda one: is_current(one) and one["status"]["plan"]["edit"] == "EngineRestart")
    namespace.rolled_out("deployment", "model-tiny")
    left = namespace.select("pods", "quarterdeck.dev/model=tiny")
    assert pods.isdisjoint(pod["metadata"]["uid"] for pod in left if not is_ending(pod))

    # `kubectl scale`, within the bounds.
    namespace("scale", "models/tiny", "--replicas=7")
    found = namespace.wait("model", "tiny", lambda one: one["status"]["replicas"]["ready"] == 3, "three replicas") or {}
    scaling = found["status"]["lastScalings"][0]
    assert (scaling["from"], scaling["to"], scaling["reason"]) == (1, 3, "set by spec.scaling.replicas")

    # Suspended, and back.
    namespace.patch("model", "tiny", {"spec": {"suspend": True, "scaling": {"replicas": None}}})
    namespace.wait("model", "tiny", lambda one: reason_of(one) == "Suspended", "Suspended")
    wait_engine_state(namespace, "tiny", "Suspended")
    namespace.wait_all("pods", "quarterdeck.dev/model=tiny", lambda pods: not pods, "gone")
    namespace.patch("model", "tiny", {"spec": {"suspend": False}})
    namespace.wait_condition("model", "tiny", "Ready")

    # Deleted: its name is gone at once, its objects soon.
    namespace.delete("model", "tiny", wait=False)
    namespace.wait("deployment", "model-tiny", lambda one: one is None, "gone")
    namespace.wait(
        "configmap", "quarterdeck-config", lambda one: '"models": []' in one["data"]["quarterdeck.yaml"], "empty"
    )
    assert operator.stop() == 0


def test_at_rest_nothing_is_written(start: Start, namespace: Kubectl) -> None:
    operator = start()
    for number in range(3):
        namespace.apply(model(f"rest-{number}", suspend=number > 0))
    namespace.wait_condition("model", "rest-0", "Ready")
    namespace.wait("model", "rest-2", lambda one: reason_of(one) == "Suspended")
    operator.wait_at_rest()
    before = operator.writes()
    for number in range(3):  # an event without a change, and another operator's start
        namespace("label", "model", f"rest-{number}", "touched=yes")
    operator.wait(lambda: operator.metric("quarterdeck_operator_watch_events_total", kind="Model") >= 3, "told")
    operator.stop()
    follower = start("follower")
    follower.wait(lambda: follower.metric("quarterdeck_operator_reconciles_total", outcome="ok") >= 3, "through")
    assert before > 0
    assert follower.writes() == 0


@pytest.mark.parametrize("change", ["create", "update"])
def test_an_operator_killed_at_every_step_leaves_what_the_next_one_completes(
    start: Start, namespace: Kubectl, cluster: Provisioned, tmp_path: Path, change: str
) -> None:
    """Each operator is killed as soon as the API server has answered its first write, so that one follows another at
    every step of a create and of an update."""
    edit = {"context": 4096, "scaling": {"min": 2, "max": 2}}
    with ApiProxy(cluster.environ, tmp_path) as proxy:
        reference = start("reference", kubeconfig=proxy.kubeconfig)
        namespace.apply(model("expected", **edit) if change == "create" else model("expected"))
        namespace.wait_condition("model", "expected", "Ready")
        if change == "update":
            namespace.patch("model", "expected", {"spec": edit})
            namespace.apply(model("killed"))
            namespace.wait_condition("model", "killed", "Ready")
        namespace.wait("model", "expected", _is_settled, "settled")
        expected = end_state(namespace, "expected")
        reference.wait_at_rest()
        reference.stop()
        namespace.apply(model("killed", **edit))
        steps = 0
        while steps < 40:
            operator = start(f"operator-{steps}", wait=False, kubeconfig=proxy.kubeconfig)
            killed = threading.Event()
            proxy.after = partial(_kill_at_a_write, operator, killed)
            while not killed.wait(2):
                if _is_settled(namespace.get("model", "killed")):
                    break
            proxy.after = lambda method, path: None
            if not killed.is_set():
                break
            namespace.delete("lease", "quarterdeck-operator")  # else the next one waits for it to expire
            steps += 1
        assert 3 <= steps < 40
        namespace.wait("model", "killed", _is_settled, "settled")
        assert end_state(namespace, "killed") == expected


def _kill_at_a_write(operator: OperatorProcess, killed: threading.Event, method: str, path: str) -> None:
    if is_step(method, path) and not killed.is_set():
        operator.kill()
        killed.set()


def _is_settled(one: dict[str, Any] | None) -> bool:
    if not is_current(one) or one is None:
        return False
    status = one.get("status") or {}
    replicas = status.get("replicas", {})
    return (
        reason_of(one) == "Ready"
        and (status.get("plan") or {}).get("image", "") != ""
        and replicas.get("ready") == replicas.get("desired") == max(one["spec"]["scaling"].get("min", 1), 1)
        and not replicas.get("draining")
    )


def test_children_that_are_deleted_or_edited_come_back(start: Start, namespace: Kubectl) -> None:
    start()
    namespace.apply(model("kept"))
    namespace.wait_condition("model", "kept", "Ready")
    before = end_state(namespace, "kept")
    for kind in ("deployment", "service", "poddisruptionbudget", "configmap"):
        name = "quarterdeck-config" if kind == "configmap" else "model-kept"
        uid = (namespace.get(kind, name) or {})["metadata"]["uid"]
        namespace.delete(kind, name)
        namespace.wait(kind, name, lambda one, uid=uid: one is not None and one["metadata"]["uid"] != uid, "back")
    namespace.wait("model", "kept", _is_settled, "settled")
    containers = {"spec": {"template": {"spec": {"nodeSelector": {"by": "hand"}, "enableServiceLinks": True}}}}
    namespace.patch("deployment", "model-kept", containers)
    namespace.patch("service", "model-kept", {"spec": {"selector": {"quarterdeck.dev/model": "other"}}})
    namespace.wait(
        "deployment", "model-kept", lambda one: one["spec"]["template"]["spec"]["enableServiceLinks"] is False, "right"
    )
    namespace.wait(
        "service", "model-kept", lambda one: one["spec"]["selector"]["quarterdeck.dev/model"] == "kept", "right"
    )
    # What others add, and the operator has no opinion about, stays.
    template = (namespace.get("deployment", "model-kept") or {})["spec"]["template"]["spec"]
    assert template["nodeSelector"] == {"by": "hand"}
    namespace(
        "patch",
        "deployment",
        "model-kept",
        "--type=json",
        "--patch",
        '[{"op": "remove", "path": "/spec/template/spec/nodeSelector"}]',
    )
    namespace.wait("model", "kept", _is_settled, "settled")
    assert end_state(namespace, "kept") == before


def test_of_two_operators_one_leads_and_the_other_follows(
    start: Start, namespace: Kubectl, record_property: Callable[[str, object], None]
) -> None:
    """A killed leader is followed when its Lease has run out, one that ends in order at once: it gives its Lease up.
    The times are reported: 10 to 13 s, and one or two on a quiet machine."""
    first = start("first")
    second = start("second", wait=False).wait_ready()
    namespace.apply(model("a"))
    namespace.wait_condition("model", "a", "Ready")
    assert first.is_leader and not second.is_leader
    assert second.writes() == 0
    killed_at = time.monotonic()
    first.kill()
    second.wait(lambda: second.is_leader, "the leader")
    record_property("seconds after a kill", time.monotonic() - killed_at)
    namespace.apply(model("b"))
    namespace.wait_condition("model", "b", "Ready")
    second.stop()
    lease = namespace.get("lease", "quarterdeck-operator") or {}
    assert not lease["spec"].get("holderIdentity"), "given up"
    third = start("third")
    assert third.is_leader


def test_an_api_server_that_refuses_with_429_delays_and_breaks_nothing(
    start: Start, namespace: Kubectl, cluster: Provisioned, tmp_path: Path
) -> None:
    refused = 0
    with ApiProxy(cluster.environ, tmp_path) as proxy:

        def throttle(method: str, path: str) -> int | None:
            nonlocal refused
            if is_step(method, path) and refused < 12:
                refused += 1
                return 429
            return None

        operator = start(kubeconfig=proxy.kubeconfig)
        proxy.before = throttle
        namespace.apply(model("slow"))
        namespace.wait_condition("model", "slow", "Ready")
        assert refused == 12 and operator.is_running
        assert operator.metric("quarterdeck_operator_api_calls_total", outcome="throttled") == 12
        # Away altogether, watches too, and back.
        proxy.before = lambda method, path: 503
        namespace.apply(model("later"))
        operator.wait(lambda: operator.metric("quarterdeck_operator_api_calls_total", outcome="failed") > 0, "refused")
        proxy.before = lambda method, path: None
        namespace.wait_condition("model", "later", "Ready")
        operator.kill()


def test_a_bad_object_does_not_disturb_the_good_ones(start: Start, namespace: Kubectl) -> None:
    start()
    namespace.apply(model("good"))
    namespace.wait_condition("model", "good", "Ready")
    uids = {pod["metadata"]["uid"] for pod in namespace.select("pods", "quarterdeck.dev/model=good")}
    bad = {
        "patch": model("patch", podTemplatePatch={"spec": {"containers": [{"name": "engine", "image": ["no"]}]}}),
        "merge": model("merge", podTemplatePatch={"spec": {"containers": "none"}}),
        "profile": model("profile", resources={"accelerator": "tpu", "gpus": 1}),
        "thief": model("thief", servedName="good"),
        "argument": model("argument", engine={"type": "sim", "args": {"port": 9}}),
        "backend": model("backend", backend="RayService", engine={"type": "sim", "image": "none/none:1"}),
    }
    expected = {
        "patch": "InvalidPodTemplatePatch",
        "merge": "InvalidPodTemplatePatch",
        "profile": "UnknownAccelerator",
        "thief": "NameConflict",
        "argument": "InvalidEngineArgument",
    }
    namespace.apply(*[bad[name] for name in expected])
    for name, reason in expected.items():
        found = namespace.wait("model", name, lambda one, reason=reason: reason_of(one) == reason, reason)
        assert found is not None and found["status"]["message"], name
        assert namespace.wait_events(name, "", type="Warning")
    namespace.apply(model("another"))
    namespace.wait_condition("model", "another", "Ready")
    good = namespace.get("model", "good")
    assert reason_of(good) == "Ready" and good is not None and "thief" not in json.dumps(good["status"])
    assert {pod["metadata"]["uid"] for pod in namespace.select("pods", "quarterdeck.dev/model=good")} == uids

    # An edit that can't be carried out: the last good engine keeps running, and a correction is taken.
    namespace.patch("model", "good", {"spec": {"podTemplatePatch": {"spec": {"containers": 7}}}})
    namespace.wait("model", "good", lambda one: reason_of(one) == "InvalidPodTemplatePatch", "refused")
    assert chat(namespace, "good") and "good" in published(namespace)
    namespace.patch("model", "good", {"spec": {"podTemplatePatch": None}})
    namespace.wait_condition("model", "good", "Ready")
    assert {pod["metadata"]["uid"] for pod in namespace.select("pods", "quarterdeck.dev/model=good")} == uids


def test_a_backend_that_the_cluster_does_not_have_is_named(
    start: Start, namespace: Kubectl, cluster: Provisioned, tmp_path: Path
) -> None:
    with ApiProxy(cluster.environ, tmp_path) as proxy:
        proxy.hides = "ray.io"
        operator = start(kubeconfig=proxy.kubeconfig)
        namespace.apply(model("no-kuberay", backend="RayService"))
        found = namespace.wait("model", "no-kuberay", lambda one: reason_of(one) == "BackendUnavailable", "refused")
        assert "Install the KubeRay operator" in (condition_of(found, "Ready") or {})["message"]
        operator.kill()


class FakeGateway:
    """`GET /demand` of a gateway, at the edge: what real ones say is tested with the chart."""

    def __init__(self) -> None:
        self.models: dict[str, Any] = {}
        self.version, self.asked = 0, 0
        self._changed = threading.Condition()
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                after = int(self.path.partition("after=")[2].partition("&")[0] or 0)
                with gateway._changed:
                    gateway.asked += 1
                    gateway._changed.wait_for(lambda: gateway.version > after, timeout=1.0)
                    body = json.dumps({"version": gateway.version, "models": gateway.models}).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("0.0.0.0", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def say(self, name: str, in_flight: int, waiting: int) -> None:
        with self._changed:
            self.models = {name: {"in_flight": in_flight, "waiting": waiting}}
            self.version += bool(waiting)
            self._changed.notify_all()

    def slice(self, address: str) -> dict[str, Any]:
        return {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "gw-test", "labels": {"kubernetes.io/service-name": "quarterdeck-gateway"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": self.server.server_address[1], "protocol": "TCP"}],
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        }

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def test_a_model_that_no_parser_can_read_is_refused_and_harms_nothing(start: Start, namespace: Kubectl) -> None:
    """The API server takes 10,000 levels, Python's parser a thousand: one such Model ended every list and watch."""
    operator = start()
    deep = json.dumps(model("deep")).replace('"sim"', '"sim", "args": {"x": ' + '{"a":' * 2000 + "1" + "}" * 2001)
    namespace("create", "--validate=false", "-f", "-", input=deep)
    namespace.apply(model("beside"))
    namespace.wait_condition("model", "beside", "Ready")
    reason = "jsonpath={.status.conditions[?(@.type=='Accepted')].reason}"
    namespace("wait", "model/deep", f"--for={reason}=InvalidSpec", "--timeout=90s")
    operator.kill()
    start("second")
    namespace.apply(model("after"))
    namespace.wait_condition("model", "after", "Ready")
    namespace("delete", "model", "deep")
    assert published(namespace) == {"beside", "after"}


def own_address(namespace: Kubectl) -> str:
    """An address of this machine that is not the loopback one, which an EndpointSlice may not have."""
    node = json.loads(namespace("get", "nodes", "--output=json"))["items"][0]
    peer = next(each["address"] for each in node["status"]["addresses"] if each["type"] == "InternalIP")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((peer, 9))
        address: str = probe.getsockname()[0]
    return address


def test_an_idle_model_goes_to_zero_and_a_waiting_request_starts_it(start: Start, namespace: Kubectl) -> None:
    gateway = FakeGateway()
    namespace.apply(gateway.slice(own_address(namespace)))
    try:
        start(config={"scaling": {"downSeconds": 1}})
        gateway.say("lazy", 1, 0)
        namespace.apply(model("lazy", scaling={"min": 0, "max": 2, "idleSeconds": 3, "target": 2}))
        namespace.wait_condition("model", "lazy", "Ready")  # never to zero before it has been ready
        gateway.say("lazy", 4, 0)
        namespace.wait("model", "lazy", lambda one: one["status"]["replicas"]["ready"] == 2, "two replicas")
        gateway.say("lazy", 0, 0)
        zero = namespace.wait("model", "lazy", lambda one: one["status"].get("state") == "Zero", "at zero") or {}
        assert reason_of(zero) == "ScaledToZero"
        wait_engine_state(namespace, "lazy", "Zero")
        assert "no request for 3 s" in json.dumps(zero["status"]["lastScalings"])
        namespace.wait("deployment", "model-lazy", lambda one: one["spec"]["replicas"] == 0, "zero")
        gateway.say("lazy", 0, 1)
        namespace.wait("deployment", "model-lazy", lambda one: one["spec"]["replicas"] == 1, "one")
        namespace.wait_condition("model", "lazy", "Ready")
        namespace.wait("model", "lazy", lambda one: one["status"]["state"] == "Serving", "serving")
    finally:
        gateway.close()
        namespace.delete("endpointslice", "gw-test")


def test_a_served_model_stays_published_while_an_operator_starts(start: Start, namespace: Kubectl) -> None:
    """A new leader does not publish what it has not looked at yet: gateways see no moment without a model."""
    first = start("first")
    for number in range(5):
        namespace.apply(model(f"m{number}"))
    for number in range(5):
        namespace.wait_condition("model", f"m{number}", "Ready")
    first.wait_at_rest()
    first.kill()
    namespace.delete("lease", "quarterdeck-operator")
    before = (namespace.get("configmap", "quarterdeck-config") or {})["metadata"]["resourceVersion"]
    second = start("second")
    second.wait(lambda: second.metric("quarterdeck_operator_reconciles_total", outcome="ok") >= 5, "through")
    after = namespace.get("configmap", "quarterdeck-config") or {}
    assert after["metadata"]["resourceVersion"] == before
    assert second.writes() == 0


def test_what_the_cluster_refuses_is_in_the_status(start: Start, namespace: Kubectl) -> None:
    """An object of someone else with the name that is needed."""
    namespace.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "model-taken"}, "spec": {"ports": [{"port": 1}]}}
    )
    start()
    namespace.apply(model("taken"))
    found = namespace.wait("model", "taken", lambda one: reason_of(one) == "NameConflict", "refused") or {}
    assert "Service 'model-taken' exists" in found["status"]["message"]
    service = namespace.get("service", "model-taken") or {}
    assert service["spec"]["ports"][0]["port"] == 1 and "ownerReferences" not in service["metadata"]
    namespace.delete("service", "model-taken")
    with pytest.raises(KubectlError):
        namespace("get", "service", "none")
    namespace.patch("model", "taken", {"metadata": {"annotations": {"again": "1"}}})
    namespace.wait_condition("model", "taken", "Ready")
