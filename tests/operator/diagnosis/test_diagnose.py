"""Findings from objects of real failing pods: fixtures/failures is what a Kubernetes 1.34 returned for each."""

import copy
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterdeck.kube.conditions import ConditionType, Reason
from quarterdeck.operator.diagnosis.diagnose import diagnose
from quarterdeck.operator.diagnosis.evidence import Evidence
from quarterdeck.operator.diagnosis.finding import Finding

FIXTURES = Path(__file__).parent.parent / "fixtures"
CASES = sorted(path.stem for path in (FIXTURES / "failures").glob("*.json"))
NODES = json.loads((FIXTURES / "nodes.json").read_text())


def load(case: str) -> dict[str, Any]:
    recorded = json.loads((FIXTURES / "failures" / f"{case}.json").read_text())
    for key, kind in (("replicasets", "ReplicaSet"), ("persistentvolumeclaims", "PersistentVolumeClaim")):
        for item in recorded[key]:
            item["kind"] = kind
    return recorded


def evidence_of(recorded: dict[str, Any], *, nodes: list[Any] | None = None, now: datetime | None = None) -> Evidence:
    children = [recorded["deployment"], *recorded["replicasets"], *recorded["persistentvolumeclaims"]]
    return Evidence(recorded["pods"], recorded["events"], children, nodes, now)


def found(case: str, **options: Any) -> Finding:
    finding = diagnose(evidence_of(load(case), **options))
    assert finding is not None
    return finding


EXPECTED = {
    "command-not-found": (Reason.CONTAINER_CONFIG_INVALID, "/no/such/python"),
    "configmap-missing": (Reason.CONTAINER_CONFIG_INVALID, "'nocm'"),
    "crash": (Reason.CRASH_LOOP, "exit code 1 after: ValueError: the answer is 41"),
    "disk-full": (Reason.DISK_FULL, "No space left on device"),
    "exit-zero": (Reason.CRASH_LOOP, "exit code 0"),
    "gpu-busy": (Reason.ACCELERATORS_BUSY, "1 × nvidia.com/gpu"),
    "gpu-too-many": (Reason.NO_SUCH_ACCELERATOR, "16 × nvidia.com/gpu"),
    "image-denied": (Reason.IMAGE_UNAUTHORIZED, "403 Forbidden"),
    "image-invalid": (Reason.IMAGE_NOT_FOUND, "not a valid image reference"),
    "image-limited": (Reason.IMAGE_PULL_FAILED, "429 Too Many Requests"),
    "image-never": (Reason.IMAGE_NOT_FOUND, "pull policy is Never"),
    "image-no-credentials": (Reason.IMAGE_UNAUTHORIZED, "401 Unauthorized"),
    "image-no-registry": (Reason.IMAGE_PULL_FAILED, "can't be reached"),
    "image-not-found": (Reason.IMAGE_NOT_FOUND, "127.0.0.1:5055/acme/engine:v9"),
    "init-crash": (Reason.DISK_FULL, "No space left on device"),
    "killed-9": (Reason.CRASH_LOOP, "exit code"),
    "limit-range": (Reason.POD_FORBIDDEN, "maximum memory usage per Container is 400Gi"),
    "liveness": (Reason.PROBE_FAILING, "liveness"),
    "no-cpu": (Reason.UNSCHEDULABLE, "enough cpu"),
    "no-memory": (Reason.UNSCHEDULABLE, "enough memory"),
    "no-product": (Reason.NO_SUCH_ACCELERATOR, "NVIDIA-H100-80GB-HBM3"),
    "oom-killed": (Reason.OUT_OF_MEMORY, "its limit of 96Mi"),
    "pod-security": (Reason.POD_FORBIDDEN, "Pod Security 'restricted:latest' forbids the pod"),
    "priority-class": (Reason.POD_FORBIDDEN, "no PriorityClass with name gold"),
    "pvc-empty-class": (Reason.VOLUME_PENDING, "names no storage class"),
    "pvc-missing": (Reason.SOURCE_NOT_FOUND, "'no-such-claim' does not exist"),
    "pvc-no-class": (Reason.VOLUME_PENDING, '"fast-ssd" not found'),
    "pvc-too-large": (Reason.VOLUME_PENDING, "'pvc-too-large' is not bound"),
    "quota-gpu": (Reason.QUOTA_EXCEEDED, "'gpus'"),
    "quota-memory": (Reason.QUOTA_EXCEEDED, "requests.memory=8Gi"),
    "quota-unspecified": (Reason.POD_FORBIDDEN, "must specify requests.memory"),
    "runtime-class": (Reason.POD_FORBIDDEN, 'RuntimeClass "nvidia" not found'),
    "secret-key-missing": (Reason.SECRET_NOT_FOUND, "no key 'token'"),
    "secret-missing": (Reason.SECRET_NOT_FOUND, "'hf' does not exist"),
    "secret-volume-missing": (Reason.SECRET_NOT_FOUND, "'nosuch' does not exist"),
    "segfault": (Reason.CRASH_LOOP, "SIG"),
    "service-account": (Reason.POD_FORBIDDEN, 'serviceaccount "nobody" not found'),
    "startup-probe": (Reason.STARTUP_TIMEOUT, "within 4 s"),
}
BY_NODES = {"gpu-taint", "no-gpu", "node-lost"}
HEALTHY = {"running", "evicted-emptydir"}
WITH_TIME = {"never-ready"}


def test_every_recorded_case_is_tested() -> None:
    assert set(CASES) == set(EXPECTED) | BY_NODES | HEALTHY | WITH_TIME


@pytest.mark.parametrize("knows_nodes", [True, False])
@pytest.mark.parametrize("case", sorted(EXPECTED))
def test_a_failing_pod_has_its_reason_in_words_and_a_hint(case: str, knows_nodes: bool) -> None:
    finding = found(case, nodes=NODES if knows_nodes else None)
    reason, words = EXPECTED[case]
    assert finding.reason == reason
    assert words in finding.message
    assert finding.hint.endswith(".") and finding.message.endswith(".")
    assert not finding.is_progress


@pytest.mark.parametrize("case", sorted(HEALTHY))
def test_ready_pods_have_no_finding(case: str) -> None:
    assert diagnose(evidence_of(load(case))) is None


def test_nodes_with_the_accelerator_and_a_taint_are_not_a_missing_accelerator() -> None:
    finding = found("gpu-taint", nodes=NODES)
    assert finding.reason == Reason.UNSCHEDULABLE
    assert "taints" in finding.message and "tolerations" in finding.hint


def test_no_node_has_an_accelerator() -> None:
    without_gpus = [node for node in NODES if node["metadata"]["name"] == "node1"]
    for nodes in (None, without_gpus):
        finding = found("no-gpu", nodes=nodes)
        assert finding.reason == Reason.NO_SUCH_ACCELERATOR
        assert "No node of the cluster has 1 × nvidia.com/gpu." in finding.message


def test_a_resource_at_the_end_of_the_schedulers_sentence() -> None:
    recorded = load("no-gpu")
    condition = recorded["pods"][0]["status"]["conditions"][0]
    condition["message"] = (
        "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. no new claims to deallocate, preemption: "
        "0/1 nodes are available: 1 No preemption victims found for incoming pod."
    )
    for nodes in (None, []):  # read before the node was added
        finding = diagnose(evidence_of(recorded, nodes=nodes))
        assert finding is not None and finding.reason == Reason.ACCELERATORS_BUSY


def test_a_pod_of_a_lost_node() -> None:
    finding = found("node-lost", nodes=NODES)
    assert finding.reason == Reason.NODE_LOST
    assert "'truth-lost' is not ready: Kubelet never posted node status." in finding.message


def test_a_pod_that_the_node_controller_marked_is_on_a_lost_node_although_nodes_are_unknown() -> None:
    recorded = load("running")
    pod = recorded["pods"][0]
    for condition in pod["status"]["conditions"]:
        if condition["type"] == "Ready":
            condition["status"] = "False"
    uid = pod["metadata"]["uid"]
    mark = {"type": "Warning", "reason": "NodeNotReady", "message": "Node is not ready"}
    mark |= {"involvedObject": {"kind": "Pod", "uid": uid}, "lastTimestamp": "2027-01-01T00:00:00Z"}
    finding = diagnose(evidence_of(recorded | {"events": [mark]}))
    assert finding is not None and finding.reason == Reason.NODE_LOST


def test_a_running_engine_that_never_becomes_ready() -> None:
    assert found("never-ready").reason == Reason.STARTING
    finding = found("never-ready", now=datetime(2027, 1, 1, tzinfo=UTC))
    assert finding.reason == Reason.PROBE_FAILING
    assert "connection refused" in finding.message
    assert "10.244" not in finding.message, "another pod has another address"


def started_engine(failures: int) -> dict[str, Any]:
    """A container whose startup probe has succeeded, with so many failed readiness probes since."""
    recorded = load("startup-probe")
    status = recorded["pods"][0]["status"]["containerStatuses"][0]
    status |= {"state": {"running": {"startedAt": "2026-11-30T04:00:00Z"}}, "lastState": {}, "started": True}
    event = next(each for each in recorded["events"] if each["reason"] == "Unhealthy")
    event |= {"message": "Readiness probe failed: HTTP probe failed with statuscode: 503", "count": failures}
    event["lastTimestamp"] = "2026-11-30T04:00:09Z"
    recorded["events"] = [event] if failures else []
    return recorded


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_started_engine_is_not_failing_before_its_first_probes(failures: int) -> None:
    finding = diagnose(evidence_of(started_engine(failures)))
    assert finding is not None and finding.reason == Reason.STARTING


def test_a_started_engine_that_answers_its_probe_with_503() -> None:
    finding = diagnose(evidence_of(started_engine(3)))
    assert finding is not None and finding.reason == Reason.PROBE_FAILING
    assert "statuscode: 503" in finding.message


def test_an_engine_that_is_being_ended_by_its_startup_probe_has_the_reason_at_once() -> None:
    recorded = load("startup-probe")
    status = recorded["pods"][0]["status"]["containerStatuses"][0]
    status |= {"state": {"running": {"startedAt": "2026-11-30T02:00:00Z"}}, "lastState": {}, "started": False}
    finding = diagnose(evidence_of(recorded))
    assert finding is not None and finding.reason == Reason.STARTUP_TIMEOUT


@pytest.mark.parametrize(
    ("reason", "message", "expected"),
    [  # texts of the kubelet's source: pkg/kubelet/eviction/helpers.go, pkg/kubelet/cm/devicemanager/manager.go
        (
            "Evicted",
            "The node was low on resource: ephemeral-storage. Threshold quantity: 10Gi, available: 9Gi. ",
            Reason.DISK_FULL,
        ),
        ("Evicted", 'Usage of EmptyDir volume "cache" exceeds the limit "1Mi". ', Reason.DISK_FULL),
        (
            "Evicted",
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 90Mi. ",
            Reason.EVICTED,
        ),
        ("NodeShutdown", "Pod was terminated in response to imminent node shutdown.", Reason.NODE_LOST),
        (
            "UnexpectedAdmissionError",
            "Allocate failed due to requested number of devices unavailable for nvidia.com/gpu. Requested: 1, "
            "Available: 0, which is unexpected",
            Reason.ACCELERATORS_BUSY,
        ),
        ("OutOfcpu", "Pod was rejected: Node didn't have enough resource: cpu", Reason.UNSCHEDULABLE),
    ],
)
def test_a_pod_that_the_node_gave_up(reason: str, message: str, expected: Reason) -> None:
    recorded = load("running")
    recorded["pods"][0]["status"] = {"phase": "Failed", "reason": reason, "message": message}
    finding = diagnose(evidence_of(recorded))
    assert finding is not None
    assert finding.reason == expected
    assert message.strip().rstrip(".") in finding.message


def test_a_failed_pod_is_forgotten_when_its_replacement_is_ready() -> None:
    recorded = load("running")
    failed = copy.deepcopy(recorded["pods"][0])
    failed["metadata"] |= {"name": "old", "uid": "old", "creationTimestamp": "2020-01-01T00:00:00Z"}
    failed["status"] = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
    recorded["pods"].append(failed)
    assert diagnose(evidence_of(recorded)) is None


def test_pods_of_an_older_revision_and_pods_being_deleted_do_not_count() -> None:
    recorded, broken = load("running"), load("crash")
    old_pod, old_set = broken["pods"][0], broken["replicasets"][0]
    old_set["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": "1"}
    recorded["replicasets"][0]["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": "12"}
    recorded["replicasets"].append(old_set)
    recorded["pods"].append(old_pod)
    assert diagnose(evidence_of(recorded)) is None
    recorded["replicasets"][0]["metadata"]["annotations"] = {}
    recorded["replicasets"][1]["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": "13"}
    finding = diagnose(evidence_of(recorded))
    assert finding is not None and finding.reason == Reason.CRASH_LOOP
    old_pod["metadata"]["deletionTimestamp"] = "2026-11-30T03:00:00Z"
    recorded["replicasets"] = []
    assert diagnose(evidence_of(recorded)) is None


def test_a_crash_is_the_finding_through_all_states_of_a_restarting_pod() -> None:
    """Terminated, waiting in CrashLoopBackOff, and running again up to the point where it failed."""
    recorded = load("crash")
    status = recorded["pods"][0]["status"]["containerStatuses"][0]
    ended = status["lastState"].get("terminated") or status["state"]["terminated"]
    ended |= {"startedAt": "2026-11-30T02:00:00Z", "finishedAt": "2026-11-30T02:00:12Z"}
    running = {"running": {"startedAt": "2026-11-30T02:01:00Z"}}
    backing_off = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 20s restarting failed container"}}
    keys = set()
    for state, last in (
        ({"terminated": ended}, {}),
        (backing_off, {"terminated": ended}),
        (running, {"terminated": ended}),
    ):
        status["state"], status["lastState"], status["ready"] = state, last, False
        finding = diagnose(evidence_of(recorded, now=datetime(2026, 11, 30, 2, 1, 15, tzinfo=UTC)))
        assert finding is not None
        keys.add(finding.key)
    assert len(keys) == 1
    outlived = diagnose(evidence_of(recorded, now=datetime(2026, 11, 30, 2, 1, 30, tzinfo=UTC)))
    assert outlived is not None and outlived.reason == Reason.STARTING, "it has passed the point where it failed"


def test_a_download_in_an_init_container_is_progress() -> None:
    recorded = load("init-crash")
    status = recorded["pods"][0]["status"]["initContainerStatuses"][0]
    status["state"], status["lastState"] = {"running": {"startedAt": "2026-11-30T02:01:00Z"}}, {}
    finding = diagnose(evidence_of(recorded))
    assert finding is not None
    assert (finding.reason, finding.condition) == (Reason.DOWNLOADING, ConditionType.WEIGHTS_READY)
    assert finding.is_progress


def test_an_error_goes_before_progress_and_a_nearer_error_before_a_farther_one() -> None:
    crash, starting, unschedulable = load("crash"), load("never-ready"), load("no-gpu")
    pods = [starting["pods"][0], unschedulable["pods"][0], crash["pods"][0]]
    finding = diagnose(Evidence(pods))
    assert finding is not None and finding.reason == Reason.CRASH_LOOP
    finding = diagnose(Evidence(pods[:2]))
    assert finding is not None and finding.reason == Reason.NO_SUCH_ACCELERATOR


def test_pods_that_are_refused_are_seen_in_the_events_of_other_owners() -> None:
    """KubeRay has no ReplicaSet; it writes an event."""
    message = load("quota-gpu")["replicasets"][0]["status"]["conditions"][0]["message"]
    event = {"type": "Warning", "reason": "FailedToCreateHeadPod", "message": f"Failed to create head Pod: {message}"}
    event["involvedObject"] = {"kind": "RayCluster", "name": "model-a"}
    finding = diagnose(Evidence((), [event]))
    assert finding is not None and finding.reason == Reason.QUOTA_EXCEEDED


@pytest.mark.parametrize("case", ["gpu-busy", "gpu-too-many", "no-cpu", "no-memory", "no-product"])
def test_a_node_that_comes_or_goes_is_no_new_cause(case: str) -> None:
    """The scheduler says why of each node: with an autoscaler of nodes its words change all the time."""
    recorded = load(case)
    before = found(case)
    for pod in recorded["pods"]:
        for each in pod["status"].get("conditions") or ():
            if each["type"] == "PodScheduled" and each.get("message"):
                each["message"] = each["message"].replace(". ", ", 2 node(s) were unschedulable. ", 1)
    after = diagnose(evidence_of(recorded))
    assert after is not None and after.text != before.text
    assert (after.reason, after.key) == (before.reason, before.key)
    assert "The scheduler says: " in after.text


@pytest.mark.parametrize("case", sorted(EXPECTED))
def test_the_key_does_not_change_with_figures_and_names_of_pods(case: str) -> None:
    recorded = load(case)
    key = found(case).key
    name = recorded["pods"][0]["metadata"]["name"] if recorded["pods"] else recorded["deployment"]["metadata"]["name"]
    text = json.dumps(recorded).replace(name, f"{name[:-5]}x9z8y").replace("0/3 nodes", "0/4 nodes")
    text = text.replace("gpu=0", "gpu=1").replace("10.244.0.2", "10.244.0.9").replace(":36031", ":41234")
    finding = diagnose(evidence_of(json.loads(text)))
    assert finding is not None and finding.key == key


@settings(max_examples=300, deadline=None)
@given(case=st.sampled_from(CASES), data=st.data())
def test_objects_that_lack_anything_are_no_error(case: str, data: st.DataObject) -> None:
    """An older cluster, a newer one, another runtime: any member may be absent, null or empty."""
    recorded = load(case)
    for _ in range(data.draw(st.integers(1, 4))):
        node: Any = recorded
        key: Any = data.draw(st.sampled_from(["pods", "events", "replicasets", "persistentvolumeclaims", "deployment"]))
        while isinstance(node[key], dict | list) and node[key] and data.draw(st.booleans() | st.just(True)):
            node = node[key]
            key = data.draw(st.sampled_from(list(node) if isinstance(node, dict) else list(range(len(node)))))
        if isinstance(node, dict) and node is not recorded:
            if data.draw(st.booleans()):
                node[key] = None
            else:
                del node[key]
    finding = diagnose(evidence_of(recorded, nodes=data.draw(st.sampled_from([None, NODES]))))
    assert finding is None or finding.message
