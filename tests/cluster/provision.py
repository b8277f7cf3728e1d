"""The cluster of the tests: the one of KUBECONFIG, else shared/cluster's, which is started and ended if need be."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.kubectl import Kubectl

CHECKOUT = Path(__file__).resolve().parents[2]
SCRIPT = CHECKOUT.parent / "shared/cluster/cluster"
STARTUP_S = 300
VOLUME = """\
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {name}, labels: {{quarterdeck.dev/test: "true"}}}}
spec:
  capacity: {{storage: 20Gi}}
  accessModes: [ReadWriteOnce, ReadWriteMany]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: standard
  claimRef: {{namespace: {namespace}, name: {claim}}}
  hostPath: {{path: {path}}}
"""


@dataclass(frozen=True)
class Provisioned:
    """A cluster and who started it."""

    environ: Mapping[str, str]
    """With KUBECONFIG, and kubectl and helm on PATH."""
    is_ours: bool
    """Whether this run started it, and so ends it."""
    home: Path | None
    """shared/cluster's folder: the node's disk is this machine's. None: another cluster."""


def available() -> str | None:
    """Why there can be no cluster here; None if there can."""
    if os.environ.get("KUBECONFIG"):
        return None if shutil.which("kubectl") or SCRIPT.exists() else "kubectl is not on PATH"
    if not SCRIPT.exists():
        return f"no KUBECONFIG is set and {SCRIPT} does not exist"
    if os.geteuid():
        return "no KUBECONFIG is set and shared/cluster needs root"
    return None


def start() -> Provisioned:
    """The cluster, started if need be. Raises RuntimeError with the reason."""
    environ = dict(os.environ)
    if not SCRIPT.exists():
        return Provisioned(environ, is_ours=False, home=None)
    given = environ.get("KUBECONFIG")
    environ |= _exports()
    home = Path(environ["KUBECONFIG"]).parent
    if given and Path(given).resolve() != Path(environ["KUBECONFIG"]).resolve():
        return Provisioned({**environ, "KUBECONFIG": given}, is_ours=False, home=None)
    if _is_up(environ):
        return Provisioned(environ, is_ours=False, home=home)
    done = subprocess.run([SCRIPT, "up"], capture_output=True, text=True, timeout=STARTUP_S, check=False)
    if done.returncode:
        raise RuntimeError(f"cluster up: {done.stderr}")
    return Provisioned(environ, is_ours=True, home=home)


def stop(cluster: Provisioned) -> None:
    """End a cluster that this run started."""
    if cluster.is_ours:
        subprocess.run([SCRIPT, "down"], capture_output=True, timeout=STARTUP_S, check=True)


def add_volumes(cluster: Provisioned, kubectl: Kubectl, claims: list[str]) -> list[str]:
    """Make a volume for each of these claims of kubectl's namespace: shared/cluster has eight, each for one claim in
    its life. Returns the names of the volumes."""
    if cluster.home is None:
        return []
    names = []
    for claim in claims:
        names.append(f"{kubectl.namespace}-{claim}")
        folder = cluster.home / "volumes" / names[-1]
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o1777)
        kubectl.apply(VOLUME.format(name=names[-1], namespace=kubectl.namespace, claim=claim, path=folder))
    return names


def remove_volumes(cluster: Provisioned, kubectl: Kubectl, names: list[str]) -> None:
    """Remove volumes that are not in use any more, and what is on them."""
    for name in names:
        kubectl.delete("persistentvolume", name, wait=False)
        if cluster.home is not None:
            shutil.rmtree(cluster.home / "volumes" / name, ignore_errors=True)


def _exports() -> dict[str, str]:
    text = subprocess.run([SCRIPT, "env"], capture_output=True, text=True, check=True).stdout
    pairs = (part.partition("=") for part in text.removeprefix("export ").split())
    found = {name: value.strip("'") for name, _, value in pairs}
    found["PATH"] = found["PATH"].replace("$PATH", os.environ.get("PATH", ""))
    return found


def _is_up(environ: Mapping[str, str]) -> bool:
    try:
        command = ["kubectl", "get", "--raw", "/readyz", "--request-timeout=5s"]
        return subprocess.run(command, env=dict(environ), capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
