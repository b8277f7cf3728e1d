"""A gateway of this checkout as a local process in a real cluster, whose way to the API server can be cut.

Pods must be reachable from this machine, as they are with shared/cluster. The configuration is written by the test, in
the operator's place: what is tested here is the gateway.
"""

import json
import select
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from tests.cluster.kubectl import Kubectl, Object
from tests.platform import DoorProcess

from quarterdeck.kube.compiled import Documents, EngineEntry, EngineIndex, to_config_map

BOOTSTRAP_KEY = "sk-qd-" + "Ab3dE5gH7jK9mN1pQ" * 3
TOKEN = "operator-token-of-the-tests"
CONFIG_MAP = "followed-config"


class Wire:
    """A TCP proxy to the API server. `freeze` lets connections stand without a byte, as a lost network does; `refuse`
    also closes them; `mend` ends both."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or 443)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open = threading.Event()
        self._open.set()
        self._refuses = False
        self._sockets: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        self._open.clear()

    def refuse(self) -> None:
        self._refuses = True
        self._abort()

    def mend(self) -> None:
        self._refuses = False
        self._open.set()

    def close(self) -> None:
        self.refuse()
        self._open.set()
        self._listener.close()

    def _abort(self) -> None:
        for one in tuple(self._sockets):
            one.close()
        self._sockets.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refuses:
                client.close()
                continue
            threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        pair = {client: server, server: client}
        self._sockets |= pair.keys()
        try:
            while True:
                readable, _, _ = select.select(list(pair), [], [], 0.5)
                for one in readable:
                    self._open.wait()
                    if not (data := one.recv(65536)):
                        return
                    pair[one].sendall(data)
        except (OSError, ValueError):  # closed by the other side, or by us
            return
        finally:
            for one in pair:
                one.close()


class ClusterGateway(DoorProcess):
    """The gateway. It has started once it listens."""

    def __init__(self, folder: Path, kubectl: Kubectl, redis_url: str, **environ: str) -> None:
        super().__init__(folder, "gateway", "/healthz")
        self.kubectl = kubectl
        self.state = folder / "state"
        config = yaml.safe_load(kubectl("config", "view", "--raw", "--minify", "--flatten"))
        cluster = config["clusters"][0]["cluster"]
        self.wire = Wire(cluster["server"])
        cluster["server"] = f"https://127.0.0.1:{self.wire.port}"
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(config))
        self._environ = {
            "KUBECONFIG": str(kubeconfig),
            "QUARTERDECK_CONFIG_MAP": CONFIG_MAP,
            "QUARTERDECK_NAMESPACE": kubectl.namespace,
            "QUARTERDECK_STATE": str(self.state),
            "QUARTERDECK_CACHE": str(folder / "cache"),
            "QUARTERDECK_PORT": str(self.port),
            "QUARTERDECK_REDIS_URL": redis_url,
            "QUARTERDECK_OPERATOR_TOKEN": TOKEN,
            "QUARTERDECK_BOOTSTRAP_KEY": BOOTSTRAP_KEY,
            **environ,
        }

    def command(self) -> list[str]:
        words = [f"{name}={value}" for name, value in self._environ.items()]
        return ["env", "-u", "QUARTERDECK_CONFIG", *words, sys.executable, "-m", "quarterdeck.gateway"]

    def write(self, config: Mapping[str, Any], *engines: EngineEntry) -> None:
        """Write the configuration, in the operator's place."""
        index = EngineIndex(engines={each.object: each for each in engines})
        data = to_config_map(Documents(json.dumps(config), index.encode()))
        manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": CONFIG_MAP}, **data}
        self.kubectl.apply(manifest)

    def ask(self, path: str, body: Object | None = None, key: str = BOOTSTRAP_KEY) -> tuple[int, Any]:
        """A request with a key; its status and JSON."""
        request = urllib.request.Request(
            self.url + path,
            None if body is None else json.dumps(body).encode(),
            {"authorization": f"Bearer {key}", "content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def models(self) -> dict[str, str]:
        """States by the names of /v1/models."""
        status, found = self.ask("/v1/models")
        return {each["id"]: each["state"] for each in found["data"]} if status == 200 else {}

    def chat(self, model: str = "chat") -> tuple[int, Any]:
        return self.ask("/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": "hi"}]})

    def ends(self) -> None:
        self.stop()
        self.wire.close()


def until(condition: Callable[[], Any], what: str, seconds: float = 300.0) -> float:
    """Wait for a state of another process; returns the seconds it took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)
    return time.monotonic() - began


def engine(image: str, replicas: int, name: str = "chat") -> list[Object]:
    """A simulated engine's Deployment and its headless Service, as the operator makes them."""
    labels = {"quarterdeck.dev/model": name, "quarterdeck.dev/role": "engine"}
    container = {
        "name": "engine",
        "image": image,
        "args": ["--host", "0.0.0.0", "--port", "8000", "--model", name, "--inter-token-latency", "5ms"],
        "ports": [{"name": "http", "containerPort": 8000}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 1},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
    }
    template = {
        "metadata": {"labels": labels},
        "spec": {
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 5,
        },
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    ports = [{"name": "http", "port": 8000}]
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": f"model-{name}"}, "spec": spec},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": f"model-{name}", "labels": labels},
            "spec": {"clusterIP": "None", "selector": labels, "ports": ports},
        },
    ]


def scale(kubectl: Kubectl, replicas: int, name: str = "chat") -> None:
    kubectl("scale", f"deployment/model-{name}", f"--replicas={replicas}")
