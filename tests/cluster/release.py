"""The chart, installed in a namespace: its gateway, its keys, its Models."""

import base64
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import openai
import yaml
from tests.cluster.kubectl import WAIT_S, Kubectl, Object, is_current

CHECKOUT = Path(__file__).resolve().parents[2]
CHART = CHECKOUT / "charts/quarterdeck"
API_VERSION = "quarterdeck.dev/v1alpha1"
INSTALL_S = 600


def image_values(images: Mapping[str, str]) -> Object:
    """Values of the chart for these images (`localhost/name:tag` by key of the catalogue)."""

    def image(reference: str) -> Object:
        registry, _, rest = reference.partition("/")
        repository, _, tag = rest.rpartition(":")
        return {"registry": registry, "repository": repository, "tag": tag}

    values: Object = {}
    for service in ("gateway", "worker", "operator", "redis"):
        if service in images:
            values[service] = {"image": image(images[service])}
    engines = {"simulator": "simulator", "raySim": "ray", "vllmCpu": "engine-cpu"}
    values["engines"] = {value: image(images[key]) for value, key in engines.items() if key in images}
    # Tests share a node of two cores: pods are not to wait for one another's requests.
    small: Object = {"resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}}
    for component in ("gateway", "worker", "operator", "redis", "secrets", "tests", "loadTest"):
        values[component] = merged(values.get(component, {}), small)
    values["crds"] = {"install": False}  # they are the cluster's, so two releases can't own them: fixture `crds`
    return values


def merged(*values: Object) -> Object:
    """Nested values, later ones win."""
    result: Object = {}
    for one in values:
        for key, value in one.items():
            if isinstance(value, dict) and isinstance(result.get(key), dict):
                result[key] = merged(result[key], value)
            else:
                result[key] = value
    return result


def claims_of(manifests: list[Object]) -> list[str]:
    """Names of the claims that rendered manifests make."""
    found = [one["metadata"]["name"] for one in manifests if one["kind"] == "PersistentVolumeClaim"]
    for one in manifests:
        if one["kind"] == "StatefulSet":
            for claim in one["spec"].get("volumeClaimTemplates", ()):
                replicas = one["spec"].get("replicas", 1)
                name = f"{claim['metadata']['name']}-{one['metadata']['name']}"
                found += [f"{name}-{ordinal}" for ordinal in range(replicas)]
    return found


class Release:
    """A release of the chart. `values` are merged over the values of the tests' images."""

    def __init__(self, kubectl: Kubectl, images: Mapping[str, str], name: str = "qd", chart: Path = CHART) -> None:
        self.kubectl = kubectl
        self.name = name
        self._chart = chart
        self._images = image_values(images)
        self._values: Object = {}
        self._address: str | None = None
        self._forward: subprocess.Popen[str] | None = None

    # ---- helm

    def helm(self, *arguments: str, seconds: float = INSTALL_S) -> str:
        """`helm <arguments>` in the release's namespace. Raises AssertionError with helm's error."""
        command = ["helm", "--namespace", self.kubectl.namespace, *arguments]
        done = subprocess.run(
            command, env=self.kubectl.environ, capture_output=True, text=True, timeout=seconds, check=False
        )
        if done.returncode:
            message = done.stderr.strip() or done.stdout.strip()
            raise AssertionError(f"helm {' '.join(arguments[:2])}: {message}\n{self.kubectl.diagnosis()}")
        return done.stdout

    def template(self, values: Object | None = None) -> list[Object]:
        """The rendered manifests."""
        text = self._with_values("template", values or {}, "--include-crds")
        return [one for one in yaml.safe_load_all(text) if one]

    def install(self, values: Object | None = None, wait: bool = True) -> None:
        """Install the release, or upgrade it to these values and images. `wait`: until everything of it is ready."""
        options = ["--install", "--wait", f"--timeout={INSTALL_S}s"] if wait else ["--install"]
        self._values = values or {}
        self._with_values("upgrade", self._values, *options)

    def upgrade(self, values: Object | None = None, images: Mapping[str, str] | None = None, wait: bool = True) -> None:
        """Upgrade to the last values with `values` over them, and to other images."""
        if images:
            self._images = merged(self._images, image_values(images))
        self.install(merged(self._values, values or {}), wait)

    def uninstall(self, wait: bool = True) -> None:
        self.close()
        self.helm(
            "uninstall", self.name, "--ignore-not-found", *(["--wait"] if wait else []), f"--timeout={INSTALL_S}s"
        )

    def _with_values(self, command: str, values: Object, *options: str) -> str:
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(merged(self._images, values), file)
            file.flush()
            return self.helm(command, self.name, str(self._chart), "--values", file.name, *options)

    # ---- the gateway

    @property
    def url(self) -> str:
        """The gateway's address from this machine: its ClusterIP, or a port-forward where that can't be reached."""
        if self._address is None:
            service = self.kubectl.get("service", f"{self.name}-gateway")
            assert service is not None, "the release has no gateway"
            host, port = service["spec"]["clusterIP"], service["spec"]["ports"][0]["port"]
            if _is_reachable(host, port):
                self._address = f"http://{host}:{port}"
            else:
                self._forward, local = forward(self.kubectl, f"service/{self.name}-gateway", port)
                self._address = f"http://127.0.0.1:{local}"
        return self._address

    def close(self) -> None:
        """End the port-forward, if there is one."""
        if self._forward is not None:
            self._forward.terminate()
            self._forward.wait()
            if self._forward.stdout is not None:
                self._forward.stdout.close()
            self._forward = None
        self._address = None

    @property
    def admin_key(self) -> str:
        """The bootstrap admin key."""
        secret = self.kubectl.get("secret", f"{self.name}-admin")
        assert secret is not None, "the release has no admin key"
        return base64.b64decode(secret["data"]["key"]).decode().strip()

    def admin(self, method: str, path: str, **json: Any) -> Any:
        """A call of the admin API; its JSON. Raises AssertionError for an error."""
        headers = {"authorization": f"Bearer {self.admin_key}"}
        response = httpx.request(method, f"{self.url}{path}", headers=headers, json=json or None, timeout=30)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        return response.json() if response.content else None

    def create_key(self, name: str, **fields: Any) -> tuple[str, str]:
        """Make a key. Returns its id and its secret."""
        created = self.admin("POST", "/admin/keys", name=name, **fields)
        return created["id"], created["key"]

    def client(self, key: str | None = None, **options: Any) -> openai.OpenAI:
        """OpenAI's SDK at the gateway, without retries: a test sees each failure."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key or self.admin_key, max_retries=0, **options)

    def ledger(self, key_id: str) -> dict[str, int]:
        """What the ledger has of a key: requests, input_tokens, output_tokens, and requests by status."""
        rows = self.admin("GET", f"/admin/usage?key={key_id}&group_by=status")["data"]
        sums = {name: sum(row[name] for row in rows) for name in ("requests", "input_tokens", "output_tokens")}
        return {**sums, **{row["status"]: row["requests"] for row in rows}}

    def wait_ledger(self, key_id: str, requests: int, seconds: float = WAIT_S) -> dict[str, int]:
        """The ledger of a key once it has `requests` rows: the worker writes them within a second or two."""
        deadline = time.monotonic() + seconds
        while (found := self.ledger(key_id))["requests"] < requests and time.monotonic() < deadline:
            time.sleep(0.5)
        return found

    def wait_listed(self, name: str, seconds: float = WAIT_S) -> None:
        """Wait until the gateway has a model name: it follows what a status tells a moment later."""
        deadline = time.monotonic() + seconds
        while name not in (listed := {each.id for each in self.client().models.list()}):
            assert time.monotonic() < deadline, f"the gateway has no {name!r} within {seconds:.0f} s: {sorted(listed)}"
            time.sleep(0.1)

    # ---- Models

    def apply_model(self, name: str, **spec: Any) -> None:
        """A Model with the simulated engine in a Deployment, and `spec` over that."""
        default: Object = {
            "engine": {"type": "sim"},
            "backend": "Deployment",
            "resources": {"accelerator": "cpu", "cpu": "10m", "memory": "192Mi"},
        }
        self.kubectl.apply(
            {
                "apiVersion": API_VERSION,
                "kind": "Model",
                "metadata": {"name": name, "namespace": self.kubectl.namespace},
                "spec": merged(default, spec),
            }
        )

    def wait_replicas(self, model: str, count: int, seconds: float = WAIT_S) -> Object:
        """Wait until the Model has exactly `count` replicas, all of them ready."""

        def has(one: Object | None) -> bool:
            replicas = ((one or {}).get("status") or {}).get("replicas") or {}
            return is_current(one) and [replicas.get(name, 0) for name in ("desired", "ready", "draining")] == [
                count,
                count,
                0,
            ]

        found = self.kubectl.wait("models.quarterdeck.dev", model, has, f"at {count} replicas", seconds)
        assert found is not None
        return found

    def wait_ready(self, model: str, seconds: float = WAIT_S) -> Object:
        """Wait until the Model is Ready for its present spec."""
        return self.kubectl.wait_condition("models.quarterdeck.dev", model, "Ready", seconds=seconds)


def forward(kubectl: Kubectl, target: str, port: int) -> tuple["subprocess.Popen[str]", int]:
    """`kubectl port-forward` to a free local port. Returns the process and the port."""
    command = ["kubectl", "--namespace", kubectl.namespace, "port-forward", target, f":{port}"]
    process = subprocess.Popen(command, env=kubectl.environ, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()  # Forwarding from 127.0.0.1:40123 -> 8000
    assert "127.0.0.1:" in line, f"port-forward: {line!r}"
    return process, int(line.split("127.0.0.1:")[1].split()[0])


def _is_reachable(host: str, port: int) -> bool:
    deadline = time.monotonic() + 10
    is_refused = False
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host, port), timeout=4).close()
            return True
        except TimeoutError:  # of another network, or the machine is busy
            is_refused = False
        except OSError:
            is_refused = True
            time.sleep(0.2)  # kube-proxy has no endpoint yet
    return is_refused  # an address of this network without a ready pod


def secret(name: str, **values: str) -> Object:
    """A Secret."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}
