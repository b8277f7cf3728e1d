"""Loads an archive of images into the nodes of a local cluster: shared/cluster, kind or k3d.

What a cluster has is remembered by the uid of its kube-system namespace, so an unchanged image is not loaded again.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from images.programs import BuildError, run, succeeds


class Cluster:
    """The cluster of KUBECONFIG, else the one of shared/cluster."""

    def __init__(self, checkout: Path, notes: Path, environ: Mapping[str, str] | None = None) -> None:
        self._script = checkout.parent / "shared/cluster/cluster"
        self._environ = dict(environ or os.environ)
        if not self._environ.get("KUBECONFIG") and self._script.exists():
            for assignment in run(str(self._script), "env").removeprefix("export ").split():
                name, _, value = assignment.partition("=")
                self._environ[name] = value.strip("'").replace("$PATH", os.environ.get("PATH", ""))
        if not succeeds("kubectl", "version", "--output=json", environ=self._environ):
            home = Path(os.environ.get("QD_CLUSTER_HOME") or Path.home() / ".cache/quarterdeck-cluster")
            self._environ["PATH"] = f"{home / 'bin'}:{self._environ.get('PATH', '')}"
        self.uid = self._kubectl("get", "namespace", "kube-system", "--output=jsonpath={.metadata.uid}")
        self._context = self._kubectl("config", "current-context").strip()
        notes.mkdir(parents=True, exist_ok=True)
        self._note = notes / f"{self.uid}.json"

    def _kubectl(self, *arguments: str) -> str:
        return run("kubectl", *arguments, environ=self._environ)

    def has(self) -> dict[str, str]:
        """What was loaded: name to the hash of its inputs."""
        found: dict[str, str] = json.loads(self._note.read_text(encoding="utf-8")) if self._note.exists() else {}
        return found

    def load(self, archive: Path, images: dict[str, str]) -> None:
        """Load an archive that has these images. Raises BuildError where nodes take images from a registry only."""
        if self._context == "qd" and self._script.exists():
            run(str(self._script), "load", str(archive), environ=self._environ)
        elif self._context.startswith("kind-"):
            name = self._context.removeprefix("kind-")
            run("kind", "load", "image-archive", str(archive), "--name", name, environ=self._environ)
        elif self._context.startswith("k3d-"):
            name = self._context.removeprefix("k3d-")
            run("k3d", "image", "import", str(archive), "--cluster", name, environ=self._environ)
        else:
            raise BuildError(
                f"the nodes of context {self._context!r} take images from a registry: --push REGISTRY instead of --load"
            )
        fresh = self._note.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps({**self.has(), **images}), encoding="utf-8")
        fresh.replace(self._note)
