"""Adapters on a real cluster: on every replica, through the gateway; a bad one harms only itself."""

import contextlib
import json
import time

import openai
import pytest
from tests.cluster.kubectl import WAIT_S, Kubectl, KubectlError, Object, condition_of, is_ending
from tests.cluster.release import API_VERSION, Release

ADAPTER = "modeladapters.quarterdeck.dev"
NAME = "base"
LIST = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8000/v1/models').read().decode())"
CRASH = """\
import urllib.request
body = b'{"messages": [{"role": "user", "content": "x"}]}'
headers = {"content-type": "application/json", "x-fault": "crash=0"}
try:
    urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:8000/v1/chat/completions", body, headers))
except OSError:
    pass
"""


def apply_model(release: Release, replicas: int) -> None:
    release.apply_model(NAME, scaling={"min": replicas, "max": replicas}, adapters={"max": 4}, resources={"cpu": "20m"})


def apply_adapter(kubectl: Kubectl, name: str, path: str, model: str = NAME, served: str | None = None) -> None:
    spec: Object = {"modelRef": {"name": model}, "source": {"uri": f"file:///adapters/{path}"}}
    if served:
        spec["servedName"] = served
    kubectl.apply({"apiVersion": API_VERSION, "kind": "ModelAdapter", "metadata": {"name": name}, "spec": spec})


def wait_loaded(kubectl: Kubectl, name: str, replicas: int) -> Object:
    def is_loaded(one: Object | None) -> bool:
        counts = ((one or {}).get("status") or {}).get("replicas") or {}
        ready = condition_of(one, "Ready")
        return ready is not None and ready["status"] == "True" and counts == {"loaded": replicas, "total": replicas}

    found = kubectl.wait(ADAPTER, name, is_loaded, f"loaded on {replicas}")
    assert found is not None
    return found


def wait_reason(kubectl: Kubectl, name: str, reason: str) -> Object:
    found = kubectl.wait(ADAPTER, name, lambda one: (condition_of(one, "Ready") or {}).get("reason") == reason, reason)
    assert found is not None
    return found


def pods(kubectl: Kubectl) -> list[str]:
    found = kubectl.select("pods", f"quarterdeck.dev/model={NAME}")
    return sorted(pod["metadata"]["name"] for pod in found if not is_ending(pod))


def in_engine(kubectl: Kubectl, pod: str) -> set[str]:
    """Adapters that an engine lists."""
    models = json.loads(kubectl("exec", pod, "--", "python", "-c", LIST))["data"]
    return {each["id"].partition("@")[0] for each in models if each["parent"]}


def ask(release: Release, model: str) -> str:
    answer = release.client().chat.completions.create(
        model=model, messages=[{"role": "user", "content": "hello"}], max_tokens=5
    )
    return answer.choices[0].message.content or ""


@pytest.fixture(scope="module")
def base(release: Release) -> Release:
    apply_model(release, 2)
    release.wait_replicas(NAME, 2)
    apply_adapter(release.kubectl, "poet", "poet")
    wait_loaded(release.kubectl, "poet", 2)
    release.wait_listed("poet")
    return release


def test_an_adapter_is_on_every_replica_and_answers_through_the_gateway(base: Release) -> None:
    status = wait_loaded(base.kubectl, "poet", 2)["status"]
    assert {each["pod"]: each["state"] for each in status["perReplica"]} == dict.fromkeys(pods(base.kubectl), "Loaded")
    assert all(in_engine(base.kubectl, pod) == {"poet"} for pod in pods(base.kubectl))
    assert ask(base, "poet") != ask(base, NAME)


def test_a_bad_adapter_harms_only_itself(base: Release) -> None:
    expected = {
        "no-files": ("fail-missing", "AdapterNotFound"),
        "too-big": ("fail-rank", "AdapterRankTooLarge"),
        "mismatch": ("fail-base", "AdapterMismatch"),
    }
    for name, (path, _) in expected.items():
        apply_adapter(base.kubectl, name, path)
    for name, (_, reason) in expected.items():
        wait_reason(base.kubectl, name, reason)
        base.kubectl.wait(ADAPTER, name, lambda one: states_of(one) == ["Failed", "Failed"], "failed on both replicas")
        with pytest.raises(openai.APIStatusError):
            ask(base, name)
    wait_loaded(base.kubectl, "poet", 2)
    assert ask(base, "poet") and ask(base, NAME)
    assert (condition_of(base.kubectl.get("models.quarterdeck.dev", NAME), "Ready") or {})["status"] == "True"
    for name in expected:
        base.kubectl.delete(ADAPTER, name)


def test_an_adapter_that_fails_its_probe_is_not_routed_to(base: Release) -> None:
    apply_adapter(base.kubectl, "broken", "fail-probe")
    wait_reason(base.kubectl, "broken", "AdapterProbeFailed")
    with pytest.raises(openai.APIStatusError):
        ask(base, "broken")
    base.kubectl.delete(ADAPTER, "broken")


def test_the_older_of_two_with_one_name_has_it(base: Release) -> None:
    apply_adapter(base.kubectl, "second", "other", served="poet")
    found = wait_reason(base.kubectl, "second", "NameConflict")
    assert "poet" in found["status"]["message"]
    base.kubectl.delete(ADAPTER, "second")


def test_a_new_replica_gets_the_adapter(base: Release) -> None:
    apply_model(base, 3)
    wait_loaded(base.kubectl, "poet", 3)
    assert all("poet" in in_engine(base.kubectl, pod) for pod in pods(base.kubectl))


def test_an_engine_that_was_restarted_gets_it_again(base: Release) -> None:
    pod = pods(base.kubectl)[0]
    before = restarts(base.kubectl.get("pods", pod))
    with contextlib.suppress(KubectlError):  # it ends with its container
        base.kubectl("exec", pod, "--", "python", "-c", CRASH)
    base.kubectl.wait("pods", pod, lambda one: restarts(one) > before, "restarted")
    base.kubectl.wait("pods", pod, lambda one: (condition_of(one, "Ready") or {}).get("status") == "True", "Ready")
    base.kubectl.wait(ADAPTER, "poet", lambda one: pod in loaded_on(one), "loaded again")
    wait_loaded(base.kubectl, "poet", len(pods(base.kubectl)))
    assert "poet" in in_engine(base.kubectl, pod)


def states_of(one: Object | None) -> list[str]:
    return [each["state"] for each in ((one or {}).get("status") or {}).get("perReplica") or ()]


def restarts(one: Object | None) -> int:
    statuses = ((one or {}).get("status") or {}).get("containerStatuses") or ()
    return sum(each["restartCount"] for each in statuses)


def loaded_on(one: Object | None) -> set[str]:
    replicas = ((one or {}).get("status") or {}).get("perReplica") or ()
    return {each["pod"] for each in replicas if each["state"] == "Loaded"}


def test_an_adapter_that_is_deleted_is_unloaded(base: Release) -> None:
    base.kubectl.delete(ADAPTER, "poet")
    deadline = time.monotonic() + WAIT_S
    while left := {pod: found for pod in pods(base.kubectl) if (found := in_engine(base.kubectl, pod))}:
        assert time.monotonic() < deadline, left
        time.sleep(0.5)
    with pytest.raises(openai.NotFoundError):
        ask(base, "poet")
