"""Images saved into one archive and loaded into a node that pulls from no registry."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cluster.kubectl import Kubectl
from tests.cluster.provision import Provisioned


def test_a_saved_image_runs_on_a_node_that_it_was_loaded_into(
    cluster: Provisioned, namespace: Kubectl, images: dict[str, str], tmp_path: Path
) -> None:
    if cluster.home is None:
        pytest.skip("the node's containerd is not on this machine")
    image = "localhost/air-gap:1"
    environ = {**cluster.environ, "STORAGE_DRIVER": "overlay", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(["buildah", "tag", images["redis"], image], env=environ, check=True)

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "quarterdeck.cli", "images", *arguments]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    archive = tmp_path / "images.tar"
    assert image in run("save", str(archive), image, "--tool", "buildah")
    socket = str(cluster.home / "run/containerd.sock")
    assert image in run("load", str(archive), "--into", "containerd", "--address", socket)
    container = {"name": "redis", "image": image, "imagePullPolicy": "Never", "args": ["redis-server", "--version"]}
    security = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "loaded"},
            "spec": {
                "restartPolicy": "Never",
                "securityContext": security,
                "containers": [{**container, "securityContext": restricted}],
            },
        }
    )
    namespace.wait("pod", "loaded", lambda pod: (pod or {}).get("status", {}).get("phase") == "Succeeded", "ended")
    assert "v=7." in namespace.logs("loaded")
