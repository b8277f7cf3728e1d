"""The operator at scale: `python -m loadtests.bench.operator_scale` (`make bench-operator`), with KUBECONFIG set.

Hundreds of Models in one namespace, whose pods kwok simulates on simulated nodes: the API server, the Deployment
controller and the scheduler are real, and nothing computes. The operator is a process of this checkout. Measured are
the time until all Models are ready, the duration of a reconcile and the wait for it, calls of the API server at rest,
the process' memory and CPU, and the time from SIGKILL to rest again (the lease's expiry included).

kwok must run (`shared/cluster/cluster kwok`). The namespace and the nodes are deleted at the end.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from quarterdeck.net.sockets import free_port

NAMESPACE = "qd-bench-operator"
PROFILE = {
    "resource": "bench.quarterdeck.dev/gpu",
    "nodeSelector": {"type": "kwok"},
    "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists", "effect": "NoSchedule"}],
}
LABELS = {"type": "kwok", "quarterdeck.dev/bench": "operator"}


class Api:
    """kubectl. Raises CalledProcessError."""

    def __call__(self, *arguments: str, input: str | None = None) -> str:
        done = subprocess.run(["kubectl", *arguments], input=input, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"kubectl {' '.join(arguments[:4])}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, manifests: Sequence[Mapping[str, Any]]) -> None:
        for at in range(0, len(manifests), 100):
            text = "\n---\n".join(json.dumps(each) for each in manifests[at : at + 100])
            self("apply", "--server-side", "--force-conflicts", "-f", "-", input=text)


def node(number: int) -> dict[str, Any]:
    capacity = {"cpu": "64", "memory": "512Gi", "pods": "110", "bench.quarterdeck.dev/gpu": "110"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": f"bench-{number}",
            "labels": LABELS,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
        },
        "spec": {"taints": [{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}]},
        "status": {"allocatable": capacity, "capacity": capacity},
    }


def model(number: int) -> dict[str, Any]:
    return {
        "apiVersion": "quarterdeck.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": f"model-{number}", "namespace": NAMESPACE},
        "spec": {
            "engine": {"type": "sim"},
            "backend": "Deployment",
            "resources": {"accelerator": "fake"},
            "rollout": {"drainSeconds": 0},
        },
    }


class Operator:
    """A process, looked at from outside."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        config = folder / "operator.yaml"
        config.write_text(yaml.safe_dump({"accelerators": {"fake": PROFILE}, "backend": "Deployment"}))
        self._log = (folder / "operator.log").open("ab")
        environ = {
            **os.environ,
            "QUARTERDECK_NAMESPACE": NAMESPACE,
            "QUARTERDECK_OPERATOR_CONFIG": str(config),
            "QUARTERDECK_OPERATOR_PORT": str(self.port),
            "QUARTERDECK_LOG_LEVEL": "WARNING",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "quarterdeck.operator"], env=environ, stdout=self._log, stderr=self._log
        )

    def page(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    def values(self, name: str) -> dict[str, float]:
        """Samples of a metric by their labels."""
        found = {}
        for line in self.page().splitlines():
            if match := re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line):
                found[match[1] or ""] = float(match[2])
        return found

    def quantile(self, name: str, share: float, labels: str = "") -> float:
        """The upper bound of the bucket in which a quantile lies."""
        counts = [
            (float(match[1].replace("+Inf", "inf")), value)
            for key, value in self.values(f"{name}_bucket").items()
            if labels in key and (match := re.search(r'le="([^"]+)"', key))
        ]
        total = max((value for _, value in counts), default=0.0)
        return next((bound for bound, value in sorted(counts) if value >= share * total), 0.0)

    def serving(self) -> int:
        states = self.values("quarterdeck_operator_models")
        return int(states.get('state="Serving"', 0))

    def writes(self) -> float:
        """Writes of the API server, the lease's left out."""
        calls = self.values("quarterdeck_operator_api_calls_total")
        return sum(
            value
            for labels, value in calls.items()
            if not re.search(r'verb="(get|list)"', labels) and 'kind="Lease"' not in labels
        )

    def resident_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        return int(found[1]) / 1024 if found else 0.0

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self, number: int = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(30)
        self._log.close()


@contextmanager
def stage(api: Api, nodes: int) -> Iterator[None]:
    """The custom resource definitions, a namespace and simulated nodes."""
    definitions = str(Path(__file__).resolve().parents[2] / "k8s" / "crds")
    api("apply", "--server-side", "--force-conflicts", "-f", definitions)
    api("wait", "--for=condition=Established", "--timeout=60s", "-f", definitions)
    api("create", "namespace", NAMESPACE)
    try:
        api.apply([node(number) for number in range(nodes)])
        yield
    finally:
        api("delete", "models", "--all", "--namespace", NAMESPACE, "--wait=false")
        api("delete", "namespace", NAMESPACE, "--wait=false")
        api("delete", "nodes", "--selector", "quarterdeck.dev/bench=operator", "--wait=false")


def wait(what: str, seconds: float, holds: Any) -> float:
    """Poll until `holds()`; the seconds that it took."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        try:
            if holds():
                return time.monotonic() - started
        except OSError:
            pass
        time.sleep(0.5)
    raise SystemExit(f"not {what} in {seconds:.0f} s")


class Figures(dict[str, float]):
    """Printed as they are found: a run that is cut off has told some."""

    def __setitem__(self, name: str, value: float) -> None:
        super().__setitem__(name, value)
        print(f"{name:<28}  {value:10.3f}".rstrip("0").rstrip("."), flush=True)


def measure(api: Api, folder: Path, models: int, rest: float) -> None:
    found = Figures()
    found["models"] = models
    operator = Operator(folder)
    try:
        wait("leading", 60, lambda: operator.values("quarterdeck_operator_leader").get("") == 1)
        found["memory without Models, MB"] = operator.resident_mb()
        started = time.monotonic()
        api.apply([model(number) for number in range(models)])
        wait("ready", 900, lambda: operator.serving() == models)
        found["all ready after, s"] = time.monotonic() - started
        found["CPU until ready, s"] = operator.cpu_seconds()
        found["writes until ready"] = operator.writes()
        found["reconcile p99, s"] = operator.quantile("quarterdeck_operator_reconcile_seconds", 0.99, 'kind="Model"')
        found["wait for a reconcile p99, s"] = operator.quantile("quarterdeck_operator_queue_wait_seconds", 0.99)
        time.sleep(15)
        writes, cpu, at = operator.writes(), operator.cpu_seconds(), time.monotonic()
        time.sleep(rest)
        passed = time.monotonic() - at
        found["writes at rest, /s"] = (operator.writes() - writes) / passed
        found["CPU at rest, %"] = 100 * (operator.cpu_seconds() - cpu) / passed
        found["memory, MB"] = operator.resident_mb()
        operator.end(signal.SIGKILL)
        started = time.monotonic()
        operator = Operator(folder)
        wait("leading", 60, lambda: operator.values("quarterdeck_operator_leader").get("") == 1)
        found["restart: leads after, s"] = time.monotonic() - started
        wait(
            "through",
            300,
            lambda: (
                operator.values("quarterdeck_operator_reconciles_total").get('kind="Model",outcome="ok"', 0) >= models
                and operator.values("quarterdeck_operator_queue_objects").get("") == 0
            ),
        )
        found["restart: at rest after, s"] = time.monotonic() - started
        found["restart: writes"] = operator.writes()
        # One edit among many: from the API server's answer to the new pod template.
        started = time.monotonic()
        api(
            "patch",
            "model",
            "model-0",
            "--namespace",
            NAMESPACE,
            "--type=merge",
            "--patch",
            '{"spec":{"context":4096}}',
        )
        wait(
            "edited",
            60,
            lambda: (
                "4096"
                in api(
                    "get",
                    "deployment",
                    "model-model-0",
                    "--namespace",
                    NAMESPACE,
                    "--output=jsonpath={.spec.template.spec.containers[0].args}",
                )
            ),
        )
        found["an edit is applied after, s"] = time.monotonic() - started
    finally:
        operator.end()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=int, default=300)
    parser.add_argument("--nodes", type=int, default=20, help="simulated nodes; a pod each for a Model (default: 20)")
    parser.add_argument("--rest", type=float, default=60, help="seconds at rest (default: 60)")
    arguments = parser.parse_args()
    api = Api()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the namespace and the nodes are deleted
    with tempfile.TemporaryDirectory() as folder, stage(api, arguments.nodes):
        measure(api, Path(folder), arguments.models, arguments.rest)
        print((Path(folder) / "operator.log").read_text()[-2000:], file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
