"""Fixtures of the tests on a real cluster: `make test-cluster`.

The cluster is KUBECONFIG's, else shared/cluster's. Images are built once for their content. Each test module has its
own namespace; what is cluster-wide (the custom resource definitions) is applied once.

QUARTERDECK_TEST_PREFIX: prefix of the namespaces (default `test`), so that people who share a cluster know theirs.
QUARTERDECK_TEST_KEEP=1 keeps the namespaces, to look at them.
"""

import itertools
import os
import re
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from images.build import build_and_load
from images.layout import cache_folder
from images.loading import Cluster
from tests.cluster import provision
from tests.cluster.kubectl import Kubectl
from tests.cluster.release import Release, claims_of
from tests.cluster.traffic import Traffic

CHECKOUT = Path(__file__).resolve().parents[2]
PREFIX = os.environ.get("QUARTERDECK_TEST_PREFIX", "test")
KEEP = bool(os.environ.get("QUARTERDECK_TEST_KEEP"))
RESTRICTED = "pod-security.kubernetes.io/enforce"

NO_CLUSTER = "QUARTERDECK_TEST_NO_CLUSTER"
"""Why shared/cluster did not start, for xdist's processes."""
CLUSTER = pytest.StashKey[provision.Provisioned]()

LONGEST = ("test_ray.py",)

_numbers = itertools.count()


def pytest_configure(config: pytest.Config) -> None:
    """Start the cluster before xdist's processes, which share it."""
    if hasattr(config, "workerinput") or config.option.collectonly or provision.available() is not None:
        return
    try:
        config.stash[CLUSTER] = provision.start()
    except RuntimeError as error:
        os.environ[NO_CLUSTER] = str(error)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End it after them, if it was started here."""
    if CLUSTER in config.stash:
        provision.stop(config.stash[CLUSTER])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is `cluster`, and has the time of pods that start; fixtures, which build images, have time limits
    of their own. What takes longest begins first, so that the last minutes have work for all of xdist's processes."""
    items.sort(key=lambda item: Path(item.path).name not in LONGEST)  # stable: each module keeps its order
    for item in items:
        if Path(item.path).is_relative_to(Path(__file__).parent):
            item.add_marker("cluster")
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(900, func_only=True))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if (reason := provision.available() or os.environ.get(NO_CLUSTER)) is not None:
        terminalreporter.write_line(f"======== SKIPPED, NO CLUSTER: {reason.strip()} ========", red=True, bold=True)


@pytest.fixture(scope="session")
def cluster() -> provision.Provisioned:
    """The cluster. Skips, loudly, where there can be none."""
    if (reason := provision.available() or os.environ.get(NO_CLUSTER)) is not None:
        pytest.skip(f"NO CLUSTER: {reason}")
    return provision.start()


@pytest.fixture(scope="session")
def kubectl(cluster: provision.Provisioned) -> Kubectl:
    """kubectl for the cluster, in the namespace default."""
    return Kubectl(cluster.environ)


@pytest.fixture(scope="session")
def build_images(cluster: provision.Provisioned) -> Callable[..., dict[str, str]]:
    """Build images and load them into the cluster: `build_images("ray")` → `{"ray": "localhost/…"}`."""
    loader = Cluster(CHECKOUT, cache_folder() / "loaded", cluster.environ)

    def build(*names: str) -> dict[str, str]:
        return build_and_load(list(names), lambda text: print(text, file=sys.stderr), loader)

    return build


@pytest.fixture(scope="session")
def images(build_images: Callable[..., dict[str, str]]) -> dict[str, str]:
    """The images of every test: gateway, worker, operator, simulator, redis, postgres. Key to reference."""
    return build_images("gateway", "worker", "operator", "simulator", "redis", "postgres")


@pytest.fixture(scope="session")
def crds(kubectl: Kubectl) -> None:
    """The custom resource definitions of this checkout."""
    folder = str(CHECKOUT / "k8s/crds")
    kubectl("apply", "--server-side", "--force-conflicts", "-f", folder)
    kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", folder)


@pytest.fixture(scope="session")
def ended_namespaces(kubectl: Kubectl) -> Iterator[list[str]]:
    """Namespaces that are being deleted. The run waits for them at its end, not between modules."""
    names: list[str] = []
    yield names
    for name in names:
        kubectl("wait", "--for=delete", f"namespace/{name}", "--timeout=600s", seconds=620)


@pytest.fixture(scope="module")
def make_namespace(kubectl: Kubectl, ended_namespaces: list[str]) -> Iterator[Callable[..., Kubectl]]:
    """Make a namespace that enforces Pod Security `restricted`: `make_namespace("name")` → its kubectl. It is deleted
    when the module's tests have ended."""
    made: list[Kubectl] = []

    def make(name: str = "", labels: dict[str, str] | None = None) -> Kubectl:
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:24] or "n"
        full = f"{PREFIX}-{slug}-{uuid.uuid4().hex[:5]}"
        labels = {RESTRICTED: "restricted", **(labels or {})}
        kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": full, "labels": labels}})
        made.append(kubectl.within(full))
        return made[-1]

    yield make
    if not KEEP:
        for one in made:
            kubectl("delete", "namespace", one.namespace, "--ignore-not-found", "--wait=false")
            ended_namespaces.append(one.namespace)


@pytest.fixture(scope="module")
def namespace(request: pytest.FixtureRequest, make_namespace: Callable[..., Kubectl]) -> Kubectl:
    """kubectl in a namespace of this module's own."""
    return make_namespace(request.module.__name__.rpartition(".")[2].removeprefix("test_"))


@pytest.fixture(scope="module")
def make_release(
    cluster: provision.Provisioned,
    kubectl: Kubectl,
    images: dict[str, str],
    make_namespace: Callable[..., Kubectl],
    crds: None,
) -> Iterator[Callable[..., Release]]:
    """Install the chart: `make_release({"gateway": {"replicas": 2}})` → Release, ready. A namespace of its own, unless
    `namespace` (a kubectl) is given; `install=False` only prepares it."""
    made: list[tuple[Release, list[str]]] = []

    def make(
        values: dict[str, Any] | None = None,
        namespace: Kubectl | None = None,
        name: str = "qd",
        install: bool = True,
        more_images: dict[str, str] | None = None,
    ) -> Release:
        release = Release(namespace or make_namespace("release"), {**images, **(more_images or {})}, name)
        volumes = provision.add_volumes(cluster, release.kubectl, claims_of(release.template(values)))
        made.append((release, volumes))
        if install:
            release.install(values)
        return release

    yield make
    if not KEEP:
        for release, volumes in made:
            release.uninstall(wait=False)
            release.kubectl("delete", "persistentvolumeclaims", "--all", "--wait=false")
            provision.remove_volumes(cluster, kubectl, volumes)


@pytest.fixture(scope="module")
def release(make_release: Callable[..., Release], namespace: Kubectl) -> Release:
    """The chart with its default values, for the tests of one module."""
    return make_release(namespace=namespace)


@pytest.fixture
def traffic() -> Iterator[Callable[..., Traffic]]:
    """Start constant traffic: `traffic(release, model="m", rate=20)` → Traffic, under way and answered."""
    running: list[Traffic] = []

    def start(release: Release, model: str, rate: float = 20, **options: Any) -> Traffic:
        key_id, key = release.create_key(f"traffic-{next(_numbers)}")
        running.append(Traffic(release.url, key, model, rate, key_id=key_id, **options))
        running[-1].start()
        return running[-1]

    yield start
    for one in running:
        one.stop()
