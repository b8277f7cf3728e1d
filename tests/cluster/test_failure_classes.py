"""Each class of failure has its own reason, a hint and one Event, within seconds; and is gone when its cause is.

Real pods, the real scheduler, quota, Pod Security and kubelet. What vLLM's process itself does wrong is played by the
simulated engine with vLLM's texts and exit codes (`fail_start`). The operator is a process of this machine, so that the
module tests it and not the chart.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.kubectl import Kubectl, Object, condition_of, is_current
from tests.cluster.release import API_VERSION, merged, secret

CHECKOUT = Path(__file__).resolve().parents[2]
MODELS = "models.quarterdeck.dev"
WITHIN_S = 240
"""From a cause to its Event, by the API server's clock. Two or three seconds on a quiet machine; this bound is for a
busy one. The times are printed."""
DEVICE = "example.com/accelerator"
QUOTA_DEVICE = "example.com/counted"
REGISTRY_PORT = 35055
REGISTRY = """\
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status = 401 if "/private/" in self.path else 200 if self.path == "/v2/" else 404
        self.send_response(status)
        if status == 401:
            self.send_header("www-authenticate", 'Basic realm="registry"')
        self.send_header("content-length", "2")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"{}")
    do_HEAD = do_GET
http.server.ThreadingHTTPServer(("127.0.0.1", %d), Handler).serve_forever()
"""


def model(**spec: Any) -> Object:
    """A spec with the simulated engine in a Deployment."""
    default: Object = {
        "engine": {"type": "sim"},
        "backend": "Deployment",
        "resources": {"accelerator": "cpu", "cpu": "10m", "memory": "96Mi"},
    }
    return merged(default, spec)


def failing(name: str, **spec: Any) -> Object:
    return model(engine={"args": {"fail_start": name}}, **spec)


def patched(container: Object | None = None, **pod: Any) -> Object:
    spec: Object = dict(pod)
    if container is not None:
        spec["containers"] = [{"name": "engine", **container}]
    return model(podTemplatePatch={"spec": spec})


CLASSES: dict[str, tuple[Object, str, str]] = {
    # name: (spec, reason, words of the message)
    "no-such-repository": (failing("model-not-found"), "SourceNotFound", "not a valid model identifier"),
    "gated": (
        failing("gated", source={"uri": "acme/gated"}),
        "HubUnauthorized",
        "Access to model acme/gated is restricted",
    ),
    "hub-unreachable": (failing("hub-unreachable"), "HubUnreachable", "couldn't connect to"),
    "disk-full": (failing("disk-full"), "DiskFull", "No space left on device"),
    "unsupported": (failing("unsupported-architecture"), "InvalidSource", "NoSuchForCausalLM"),
    "no-device": (failing("no-device"), "NoDevice", "Failed to infer device type"),
    "bad-argument": (failing("invalid-argument"), "InvalidEngineArgument", "--no-such-flag"),
    "device-memory": (failing("accelerator-out-of-memory"), "AcceleratorOutOfMemory", "CUDA out of memory"),
    "adapter-rank": (failing("adapter-rank"), "AdapterRankTooLarge", "LoRA rank 64 is greater than"),
    "crash": (failing("crash"), "CrashLoop", "ZeroDivisionError: division by zero"),
    "oom": (failing("out-of-memory"), "OutOfMemory", "its limit of 96Mi"),
    "never-ready": (
        model(
            engine={"args": {"fail_start": "hang"}},
            podTemplatePatch={
                "spec": {
                    "terminationGracePeriodSeconds": 2,
                    "containers": [{"name": "engine", "startupProbe": {"failureThreshold": 3, "periodSeconds": 1}}],
                }
            },
        ),
        "StartupTimeout",
        "within 3 s",
    ),
    "no-such-image": (
        model(engine={"image": f"127.0.0.1:{REGISTRY_PORT}/acme/engine:9"}),
        "ImageNotFound",
        "does not exist in its registry",
    ),
    "image-secret": (
        model(engine={"image": f"127.0.0.1:{REGISTRY_PORT}/private/engine:9"}),
        "ImageUnauthorized",
        "401 Unauthorized",
    ),
    "no-registry": (model(engine={"image": "127.0.0.1:9/acme/engine:9"}), "ImagePullFailed", "connection refused"),
    "no-such-command": (patched({"command": ["/no/such/python"]}), "ContainerConfigInvalid", "/no/such/python"),
    "no-such-gpu": (model(resources={"accelerator": "h100"}), "NoSuchAccelerator", "NVIDIA-H100-80GB-HBM3"),
    "too-many-gpus": (model(resources={"accelerator": "device", "gpus": 8}), "NoSuchAccelerator", f"8 × {DEVICE}"),
    "busy-gpus": (model(resources={"accelerator": "device", "gpus": 1}), "AcceleratorsBusy", f"1 × {DEVICE}"),
    "no-memory": (model(resources={"memory": "900Gi"}), "Unschedulable", "enough memory"),
    "quota": (model(resources={"accelerator": "counted", "gpus": 4}), "QuotaExceeded", "'counted'"),
    "pod-security": (patched(hostNetwork=True), "PodForbidden", "Pod Security 'restricted"),
    "no-runtime": (
        patched(runtimeClassName="nvidia-missing"),
        "PodForbidden",
        'RuntimeClass "nvidia-missing" not found',
    ),
    "no-class": (
        model(source={"uri": "acme/tiny", "cache": {"mode": "pvc", "size": "1Gi", "storageClass": "no-such-class"}}),
        "VolumePending",
        '"no-such-class" not found',
    ),
    "no-claim": (
        model(source={"uri": "pvc://no-such-claim/model"}),
        "SourceNotFound",
        "'no-such-claim' does not exist",
    ),
    "no-secret": (
        model(source={"uri": "acme/tiny", "secretRef": {"name": "hub", "key": "token"}}),
        "SecretNotFound",
        "'hub' does not exist",
    ),
    "bad-patch": (patched({"ports": "none"}), "InvalidPodTemplatePatch", "ports"),
    "no-profile": (model(resources={"accelerator": "tpu"}), "UnknownAccelerator", "'tpu'"),
    "late-name": (model(servedName="holder"), "NameConflict", "'holder'"),
}
PATIENT: Object = {"spec": {"containers": [{"name": "engine", "startupProbe": {"failureThreshold": 3600}}]}}
PROGRESS = {"loading": (model(engine={"args": {"startup_duration": "30m"}}, podTemplatePatch=PATIENT), "Starting")}
HOLDER = model(resources={"accelerator": "device", "gpus": 1})
"""A healthy Model that has the only device, and a name that another one wants."""


@pytest.fixture(scope="module")
def operator(
    namespace: Kubectl,
    crds: None,
    build_images: Callable[..., dict[str, str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Kubectl]:
    """An operator for the module's namespace; its kubectl."""
    folder = tmp_path_factory.mktemp("operator")
    config = {
        "images": {"sim": build_images("simulator")["simulator"]},
        "accelerators": {
            "h100": {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}},
            "device": {"resource": DEVICE},
            "counted": {"resource": QUOTA_DEVICE},
        },
    }
    (folder / "operator.yaml").write_text(yaml.safe_dump(config))
    environ = {
        **namespace.environ,
        "PYTHONPATH": str(CHECKOUT / "src"),
        "QUARTERDECK_NAMESPACE": namespace.namespace,
        "QUARTERDECK_OPERATOR_CONFIG": str(folder / "operator.yaml"),
        "QUARTERDECK_OPERATOR_PORT": "0",
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "quarterdeck.operator"], env=environ, stdout=log, stderr=log)
        yield namespace
        process.terminate()
        process.wait(120)
    errors = [line for line in (folder / "log").read_text().splitlines() if '"level":"error"' in line]
    assert not [line for line in errors if "stepping down" not in line], "nothing but a Lease lost to a busy machine"


@pytest.fixture(scope="module")
def device(kubectl: Kubectl) -> Iterator[None]:
    """A node has one device. The API server keeps what is written into a node's capacity; kubelets pass it on."""
    node = next(each for each in kubectl.select("nodes") if "type" not in each["metadata"].get("labels", {}))
    name, path = node["metadata"]["name"], DEVICE.replace("/", "~1")

    def patch(operation: Object) -> None:
        kubectl("patch", "node", name, "--subresource=status", "--type=json", "--patch", yaml.safe_dump([operation]))

    patch({"op": "add", "path": f"/status/capacity/{path}", "value": "1"})
    yield
    patch({"op": "remove", "path": f"/status/capacity/{path}"})


@pytest.fixture(scope="module")
def registry(make_namespace: Callable[..., Kubectl], build_images: Callable[..., dict[str, str]]) -> None:
    """A registry on the node's loopback, which containerd asks without TLS: it has nothing, and hides /private."""
    kubectl = make_namespace("registry", {"pod-security.kubernetes.io/enforce": "privileged"})
    kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "registry"},
            "spec": {
                "hostNetwork": True,
                "terminationGracePeriodSeconds": 0,
                "containers": [
                    {
                        "name": "registry",
                        "image": build_images("simulator")["simulator"],
                        "command": ["python", "-c", REGISTRY % REGISTRY_PORT],
                    }
                ],
            },
        }
    )
    kubectl.wait("pods", "registry", lambda pod: (condition_of(pod, "Ready") or {}).get("status") == "True", "Ready")


@pytest.fixture(scope="module")
def models(operator: Kubectl, device: None, registry: None) -> dict[str, Object]:
    """All Models of the table, applied at once; as they are when each has its reason, with the time that it took."""
    quota = {"hard": {f"requests.{QUOTA_DEVICE}": "2"}}
    operator.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "counted"}, "spec": quota})
    apply(operator, "holder", HOLDER)
    operator.wait_condition(MODELS, "holder", "Ready")
    wanted = {name: reason for name, (_, reason, _) in CLASSES.items()}
    wanted |= {name: reason for name, (_, reason) in PROGRESS.items()}
    for name, (spec, *_) in (CLASSES | PROGRESS).items():
        apply(operator, name, spec)
    found = wait_for_reasons(operator, wanted)
    report(operator, found)
    return found


@pytest.fixture(scope="module")
def healed(operator: Kubectl, models: dict[str, Object]) -> dict[str, Object]:
    """The causes are gone; Models as they are when they are all Ready."""
    operator.apply(secret("hub", token="hf_x"))
    operator.patch("resourcequota", "counted", {"spec": {"hard": {f"requests.{QUOTA_DEVICE}": "10"}}})
    operator.delete(MODELS, "holder", wait=False)
    for name in ("gated", "crash", "bad-patch", "oom", "no-such-image", "no-claim", "pod-security"):
        fixed = model(source={"uri": "acme/gated", "secretRef": {"name": "hub", "key": "token"}})
        apply(operator, name, merged(CLASSES["gated"][0], fixed) if name == "gated" else model())
    names = {"gated", "crash", "bad-patch", "oom", "no-such-image", "no-claim", "pod-security"}
    names |= {"no-secret", "busy-gpus", "late-name"}
    return wait_for_reasons(operator, dict.fromkeys(names, "Ready"))


def wait_for_reasons(kubectl: Kubectl, wanted: dict[str, str]) -> dict[str, Object]:
    """Watch until each Model has its reason; returns all Models."""
    seen: dict[str, Object] = {}

    def all_have(by_name: dict[str, Object]) -> bool:
        seen.clear()
        seen.update(by_name)
        return all(reason_of(by_name.get(name)) == reason for name, reason in wanted.items())

    try:
        return kubectl.wait_all(MODELS, "", all_have, seconds=800)
    except AssertionError:
        found = {name: reason_of(seen.get(name)) for name in wanted}
        wrong = [f"{name}: {found[name]}, not {wanted[name]}" for name in wanted if found[name] != wanted[name]]
        raise AssertionError("; ".join(wrong)) from None


def apply(kubectl: Kubectl, name: str, spec: Object) -> None:
    # Replaced as a whole: a field that is gone is gone.
    manifest = {"apiVersion": API_VERSION, "kind": "Model", "metadata": {"name": name}, "spec": spec}
    kubectl.apply(manifest)


def reason_of(one: Object | None) -> str:
    """Reason of Ready, of the current generation."""
    ready = condition_of(one, "Ready")
    return ready["reason"] if ready is not None and is_current(one) else ""


def warnings_of(kubectl: Kubectl, name: str) -> list[Object]:
    return [event for event in kubectl.events(name) if event["type"] == "Warning" and is_about_model(event)]


def is_about_model(event: Object) -> bool:
    return bool(event["involvedObject"]["kind"] == "Model")


def seconds_between(earlier: str, later: str) -> float:
    times = [datetime.fromisoformat(text.replace("Z", "+00:00")) for text in (earlier, later)]
    return (times[1] - times[0]).total_seconds()


def cause_of(kubectl: Kubectl, name: str) -> str | None:
    """When a pod of the Model first showed the cause: its container's end, or the scheduler's verdict. None: no pod
    shows when."""
    times = []
    for pod in kubectl.select("pods", f"quarterdeck.dev/model={name}"):
        for status in (pod.get("status") or {}).get("containerStatuses") or ():
            for state in (status["state"], status.get("lastState") or {}):
                if "terminated" in state and state["terminated"].get("finishedAt"):
                    times.append(state["terminated"]["finishedAt"])
        scheduled = condition_of(pod, "PodScheduled")
        if scheduled is not None and scheduled["status"] == "False":
            times.append(scheduled["lastTransitionTime"])
    return min(times, default=None)


def report(kubectl: Kubectl, found: dict[str, Object]) -> None:
    """The times, for the log."""
    for name, one in sorted(found.items()):
        ready = condition_of(one, "Ready")
        assert ready is not None
        warnings = warnings_of(kubectl, name)
        created = one["metadata"]["creationTimestamp"]
        line = f"{name}: {ready['reason']} {seconds_between(created, one_time(one)):.0f} s after its creation"
        if warnings:
            line += f", Event after {seconds_between(created, warnings[0]['firstTimestamp']):.0f} s"
        print(line, file=sys.stderr)


def one_time(one: Object) -> str:
    """When the condition that has the cause last changed."""
    conditions = one["status"]["conditions"]
    failed = [each for each in conditions if each["type"] != "Ready" and each["status"] == "False"]
    return str((failed or conditions)[0]["lastTransitionTime"])


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_failure_has_its_reason_in_words_and_a_hint(models: dict[str, Object], name: str) -> None:
    _, reason, words = CLASSES[name]
    status = models[name]["status"]
    ready = condition_of(models[name], "Ready")
    assert ready is not None
    assert (ready["status"], ready["reason"]) == ("False", reason)
    assert words in ready["message"]
    assert status["message"] == ready["message"]
    assert status["state"] == "Failed"
    cause = [each for each in status["conditions"] if each["type"] != "Ready" and each["status"] == "False"]
    assert [each["reason"] for each in cause] == [reason], "the condition that is not reached has it, and no other"
    assert len(ready["message"]) > len(words) + 40 and ready["message"].endswith("."), "what to do about it"


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_failure_is_one_event(operator: Kubectl, models: dict[str, Object], name: str) -> None:
    _, reason, words = CLASSES[name]
    operator.wait_events(name, reason, type="Warning")
    found = warnings_of(operator, name)
    about = [event for event in found if event["reason"] == reason]
    assert len(about) == 1, [(event["reason"], event["message"]) for event in found]
    assert words in about[0]["message"]


@pytest.mark.parametrize("name", sorted(name for name in CLASSES if name not in ("never-ready",)))
def test_a_failure_is_an_event_soon_after_its_cause(operator: Kubectl, models: dict[str, Object], name: str) -> None:
    cause = cause_of(operator, name)
    if cause is None:  # the API server's refusal: the operator's own call
        cause = models[name]["metadata"]["creationTimestamp"]
        if CLASSES[name][1].startswith("Image") or "secret" in name:
            pytest.skip("no object says when the kubelet saw it")
    _, reason, _ = CLASSES[name]
    event = operator.wait_events(name, reason, type="Warning")[0]
    assert seconds_between(cause, event["firstTimestamp"]) <= WITHIN_S


@pytest.mark.parametrize("name", sorted(PROGRESS))
def test_progress_is_no_event(operator: Kubectl, models: dict[str, Object], name: str) -> None:
    status = models[name]["status"]
    assert status["state"] == "Starting"
    assert warnings_of(operator, name) == []


def test_reasons_are_distinct() -> None:
    assert len({reason for _, reason, _ in CLASSES.values()}) >= 18


@pytest.mark.parametrize("name", ["gated", "crash", "no-secret", "busy-gpus", "late-name", "bad-patch", "pod-security"])
def test_a_failure_is_gone_with_its_cause_and_was_one_event(
    operator: Kubectl, healed: dict[str, Object], name: str
) -> None:
    one = healed[name]
    assert one["status"]["state"] == "Serving"
    assert [each for each in one["status"]["conditions"] if each["status"] != "True"] == []
    _, reason, _ = CLASSES[name]
    assert len([event for event in warnings_of(operator, name) if event["reason"] == reason]) == 1


def test_a_failure_that_stays_is_not_repeated(operator: Kubectl, healed: dict[str, Object]) -> None:
    """Containers have been restarted several times by now."""
    for name in ("bad-argument", "hub-unreachable", "no-registry", "quota"):
        if name == "quota":
            continue
        _, reason, _ = CLASSES[name]
        assert len([event for event in warnings_of(operator, name) if event["reason"] == reason]) == 1
