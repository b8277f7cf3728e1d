"""Helm, and the charts as it renders them, without a cluster."""

import functools
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "charts" / "quarterdeck"
CI_VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
_CLUSTERS = (ROOT / "shared" / "cluster", ROOT.parent / "shared" / "cluster")
"""Where the test cluster's binaries may be."""


@functools.cache
def helm() -> str:
    """The path of helm: of this machine, or the test cluster's. Skips where there is none."""
    if found := shutil.which("helm"):
        return found
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for folder in (cache / "quarterdeck-cluster" / "bin", cache / "quarterdeck" / "tools"):
        if (folder / "helm").exists():
            return str(folder / "helm")
    for cluster in _CLUSTERS:
        if (archive := cluster / "bin.tar.xz").exists():
            folder = cache / "quarterdeck" / "tools"
            with tarfile.open(archive) as tar:
                member = next(each for each in tar if Path(each.name).name == "helm")
                member.name = f"helm.{os.getpid()}"
                tar.extract(member, folder, filter="data")
            (folder / member.name).replace(folder / "helm")  # another run may unpack it as well
            return str(folder / "helm")
    pytest.skip("helm is not installed, and there is no shared/cluster to take it from")


def run(arguments: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([helm(), *arguments], capture_output=True, text=True, timeout=300)


def render(
    *files: Path, values: Mapping[str, Any] | None = None, name: str = "prod", chart: Path = CHART, schema: bool = True
) -> list[dict[str, Any]]:
    """The objects of a release, hooks included, in namespace `ns`."""
    finished = template(*files, values=values, name=name, chart=chart, schema=schema)
    assert finished.returncode == 0, finished.stderr
    return [each for each in yaml.load_all(finished.stdout, yaml.CSafeLoader) if each]


def template(
    *files: Path, values: Mapping[str, Any] | None = None, name: str = "prod", chart: Path = CHART, schema: bool = True
) -> "subprocess.CompletedProcess[str]":
    arguments = ["template", name, str(chart), "--namespace", "ns"]
    arguments += [f"--values={file}" for file in files]
    arguments += ["--set-json", json.dumps(values)] if values else []
    arguments += [] if schema else ["--skip-schema-validation"]
    return run(arguments)


def pod_specs(objects: Sequence[dict[str, Any]]) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Pods and pod templates: `Kind/name`, the pod's metadata, its spec."""
    found = []
    for each in objects:
        where = f"{each['kind']}/{each['metadata']['name']}"
        if each["kind"] == "Pod":
            found.append((where, each["metadata"], each["spec"]))
        elif each["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
            pod = each["spec"]["template"]
            found.append((where, pod["metadata"], pod["spec"]))
    return found
