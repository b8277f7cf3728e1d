"""Each `charts/quarterdeck/ci/*-values.yaml` is a promise that this install works: here it is kept."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex

import pytest
import yaml
from tests.cluster import externals
from tests.cluster.kubectl import Kubectl, Object
from tests.cluster.provision import Provisioned
from tests.cluster.release import CHART, Release
from tests.helm import CI_VALUES, render

NAMES = [each.name.removesuffix("-values.yaml") for each in CI_VALUES]
EVERYTHING = CHART.parents[1] / "tests/charts/everything.yaml"
KUBERAY = "rayservices.ray.io"
OPTIONAL = ("HTTPRoute", "ServiceMonitor", "PodMonitor", "PrometheusRule")
"""Kinds of operators that the test cluster does not have."""


def values_of(name: str) -> Object:
    loaded: Object = yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text())
    return loaded


def without_images(values: Object) -> Object:
    """Values without the images that the harness replaces."""
    return {
        key: without_images(each) if isinstance(each, dict) else each for key, each in values.items() if key != "image"
    }


@pytest.mark.parametrize("file", [*CI_VALUES, EVERYTHING], ids=[*NAMES, "everything"])
def test_a_server_takes_every_object_in_a_restricted_namespace(file: Path, namespace: Kubectl, crds: None) -> None:
    objects = render(file, values={"crds": {"install": False}, "global": {"priorityClassName": ""}})
    namespace.apply(*[each for each in objects if each["kind"] not in OPTIONAL], options=("--dry-run=server",))


def prepare(name: str, namespace: Kubectl, images: dict[str, str], folder: Path) -> None:
    """What the values file expects in its namespace."""
    if name in ("ha", "external"):
        externals.postgres(namespace, images["postgres"])
        externals.redis(namespace, images["redis"], folder)
    if name == "external":
        namespace.apply(
            externals.secret("my-admin", **{"admin-key": f"sk-qd-{token_hex(32)}"}),
            externals.secret("my-token", operator=token_hex(32)),
            externals.secret("my-ray", auth_token=token_hex(32)),
        )
    if name == "gateway-only":
        namespace.apply(
            *externals.server(
                "elsewhere",
                images["simulator"],
                [8000],
                {"/tmp": {"emptyDir": {}}},
                args=["--host", "0.0.0.0", "--port", "8000", "--model", "elsewhere"],
            )
        )


EACH_COMMIT = ("airgap",)
"""Installed at each commit; test_docs.py installs the defaults and ha, and the others would take minutes."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in EACH_COMMIT else [pytest.mark.long]) for name in NAMES]
)
def test_a_values_file_installs_passes_helm_test_and_leaves_what_it_says(
    name: str,
    cluster: Provisioned,
    kubectl: Kubectl,
    images: dict[str, str],
    make_namespace: Callable[..., Kubectl],
    make_release: Callable[..., Release],
    tmp_path: Path,
) -> None:
    if name == "kuberay" and kubectl.get("crd", KUBERAY) is None:
        pytest.skip("KubeRay is not installed")
    namespace = make_namespace(f"values-{name}")
    prepare(name, namespace, images, tmp_path)
    values = without_images(values_of(name))
    if name == "airgap":
        values = values | mirrored(cluster, images)
    release = make_release(values, namespace=namespace, name="q")
    if name == "kuberay":  # its engines are tested in test_ray.py; the platform itself is what is left
        assert namespace.get("deployment", "q-operator") is not None
    else:
        print(release.helm("test", "q", "--logs", "--timeout", "240s"))
    release.uninstall()
    left = {
        kind: {each["metadata"]["name"] for each in namespace.select(kind, "app.kubernetes.io/part-of=quarterdeck")}
        for kind in (
            "deployments",
            "statefulsets",
            "services",
            "configmaps",
            "secrets",
            "roles",
            "networkpolicies",
            "jobs",
        )
    }
    secrets = {"q-admin", "q-operator-token", "q-redis"}
    assert left.pop("secrets") <= secrets
    assert not any(left.values()), left


def mirrored(cluster: Provisioned, images: dict[str, str]) -> Object:
    """Values by which every image comes from one registry, and the node's images under these names."""
    if cluster.home is None:
        pytest.skip("images can be renamed on shared/cluster's node only")
    containerd = [
        "ctr",
        "--address",
        str(cluster.home / "run/containerd.sock"),
        "--namespace",
        "k8s.io",
        "images",
        "tag",
    ]
    values: Object = {"engines": {}}
    for key in ("gateway", "worker", "operator", "simulator", "redis"):
        repository, _, tag = images[key].removeprefix("localhost/").rpartition(":")
        mirror = f"localhost/mirror/{repository}:{tag}"
        subprocess.run([*containerd, "--force", images[key], mirror], check=True, capture_output=True)
        image = {"registry": "", "repository": repository, "tag": tag}
        if key == "simulator":
            values["engines"]["simulator"] = image
        else:
            values[key] = {"image": image}
    return values


def test_definitions_are_the_releases_and_stay_with_its_models_when_it_goes(
    kubectl: Kubectl, crds: None, make_namespace: Callable[..., Kubectl]
) -> None:
    namespace = make_namespace("crds")
    release = Release(namespace, {}, "q")
    # no Secrets, so no pod starts; the definitions here were made by kubectl, hence --take-ownership
    options = ["--no-hooks", "--take-ownership", "--set", "operator.readNodes=false"]
    release.helm("install", "q", str(CHART), *options)
    found = kubectl.get("crd", "models.quarterdeck.dev")
    assert found is not None
    assert found["metadata"]["annotations"]["meta.helm.sh/release-namespace"] == namespace.namespace
    release.apply_model("kept", suspend=True)
    release.helm("uninstall", "q", "--no-hooks", "--wait")
    assert namespace.get("models.quarterdeck.dev", "kept") is not None
