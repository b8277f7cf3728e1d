"""The commands against a release in a cluster, as a user runs them: through kubectl and a port-forward."""

import os
import subprocess
import sys

import pytest
from tests.cluster.kubectl import Kubectl
from tests.cluster.release import Release

MODEL = "small"


@pytest.fixture(scope="module")
def platform(release: Release) -> Release:
    release.apply_model(MODEL, engine={"type": "sim"}, scaling={"min": 1, "max": 1, "target": 8})
    release.wait_ready(MODEL)
    return release


def run(kubectl: Kubectl, *arguments: str, input: str | None = None) -> "subprocess.CompletedProcess[str]":
    """`quarterdeck <arguments>` with the cluster's kubeconfig and a state folder that has no platform."""
    environ = {**kubectl.environ, "QUARTERDECK_STATE": "/nonexistent", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "quarterdeck.cli", *arguments]
    return subprocess.run(command, env=environ, input=input, capture_output=True, text=True, timeout=120, check=False)


def output(kubectl: Kubectl, *arguments: str) -> str:
    done = run(kubectl, "--namespace", kubectl.namespace, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_keys_models_chat_usage_and_requests_work_through_kubectl(platform: Release) -> None:
    kubectl = platform.kubectl
    secret = output(kubectl, "keys", "create", "from-cli").strip()
    assert secret.startswith("sk-qd-")
    answer = platform.client(secret).chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "hello"}], max_tokens=5
    )
    assert answer.usage is not None
    assert "from-cli" in output(kubectl, "keys", "list")
    assert MODEL in output(kubectl, "models")
    key_id = next(line.split()[0] for line in output(kubectl, "keys", "list").splitlines() if "from-cli" in line)
    platform.wait_ledger(key_id, 1)
    assert "from-cli" in output(kubectl, "usage", "--by", "key")
    assert MODEL in output(kubectl, "requests", "list")


def test_status_shows_the_parts_and_models_of_the_release(platform: Release) -> None:
    text = output(platform.kubectl, "status")
    rows = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    for part in ("gateway", "worker", "operator", "redis"):
        assert "ready" in rows[part], text
    assert rows[MODEL].split()[1:4] == ["True", "Ready", "1/1"], text


def test_the_release_is_found_without_its_namespace_where_it_is_the_only_one(platform: Release) -> None:
    done = run(platform.kubectl, "--release", platform.name, "models")
    others = platform.kubectl.select("deployments", "app.kubernetes.io/name=quarterdeck") and "several releases"
    assert done.returncode == 0 or str(others) in done.stderr, done.stderr


def test_a_namespace_without_a_release_is_one_line(platform: Release) -> None:
    done = run(platform.kubectl, "--namespace", "kube-public", "keys", "list")
    assert (done.returncode, done.stderr) == (1, "Error: no release of Quarterdeck in namespace kube-public\n")


def test_the_doctor_finds_a_good_release_in_order_and_a_broken_model_missing(platform: Release) -> None:
    kubectl = platform.kubectl
    good = run(kubectl, "--namespace", kubectl.namespace, "doctor", "--cluster")
    assert good.returncode == 0, good.stdout
    for line in ("ok      custom resource definitions: 5, of this version", "ok      gateway: ready"):
        assert line in good.stdout, good.stdout
    assert f"ok      Pod Security: namespace {kubectl.namespace} enforces restricted" in good.stdout
    platform.apply_model("broken", engine={"type": "sim", "image": "localhost/does-not-exist:1"})
    kubectl.wait_condition("models.quarterdeck.dev", "broken", "Ready", "False")
    bad = run(kubectl, "--namespace", kubectl.namespace, "doctor", "--cluster")
    kubectl.delete("models.quarterdeck.dev", "broken")
    assert bad.returncode == 1
    assert "missing Model broken: " in bad.stdout


def test_a_gateways_url_and_a_key_file_work_without_kubectl(platform: Release) -> None:
    environ = {"PATH": "/nonexistent", "QUARTERDECK_STATE": "/nonexistent", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "quarterdeck.cli", "--url", platform.url, "--key-file", "-", "keys", "list"]
    done = subprocess.run(
        command, env=environ, input=platform.admin_key, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
