"""Two releases in one cluster: the end of one while the other serves, and the end of a namespace with all in it."""

from collections.abc import Callable, Iterator

import openai
import pytest
from tests.cluster.kubectl import Kubectl, KubectlError
from tests.cluster.release import Release
from tests.cluster.traffic import Traffic

MODEL = "twin"
TWICE = {"engine": {"type": "sim"}, "scaling": {"min": 1, "max": 1}}


@pytest.fixture(scope="module")
def first(make_release: Callable[..., Release], namespace: Kubectl) -> Release:
    release = make_release(namespace=namespace, name="b-qd")
    release.apply_model(MODEL, **TWICE)
    release.apply_model("of-the-first", suspend=True)
    release.wait_ready(MODEL)
    return release


@pytest.fixture(scope="module")
def second(make_release: Callable[..., Release], kubectl: Kubectl, first: Release) -> Iterator[Release]:
    """Its namespace and name, joined by a dash, are those of the first: what is the cluster's must differ anyway."""
    name = f"{first.kubectl.namespace}-b"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    try:
        release = make_release(namespace=kubectl.within(name))
        release.apply_model(MODEL, **TWICE)
        release.wait_ready(MODEL)
        yield release
    finally:
        kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")


def cluster_roles(release: Release) -> list[str]:
    """What the release has beyond its namespace."""
    found = release.kubectl(
        "get",
        "clusterroles,clusterrolebindings",
        f"--selector=app.kubernetes.io/instance={release.name},app.kubernetes.io/part-of=quarterdeck",
        "--output=name",
    )
    return [name for name in found.split() if f"/{release.kubectl.namespace}:" in name]


def test_each_release_has_its_own_models_keys_and_rights(first: Release, second: Release) -> None:
    assert len(cluster_roles(first)) == len(cluster_roles(second)) == 2
    for release in (first, second):
        release.wait_listed(MODEL)
        assert release.client().chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hello"}], max_tokens=4
        )
    first.wait_listed("of-the-first")
    assert "of-the-first" not in {each.id for each in second.client().models.list()}
    with pytest.raises(openai.AuthenticationError):
        second.client(first.admin_key).models.list()


def test_a_second_release_in_one_namespace_is_refused_with_the_reason(
    first: Release, make_release: Callable[..., Release]
) -> None:
    """Its operator would wait for the first one's Lease, and its gateways for a configuration."""
    third = make_release(namespace=first.kubectl, name="third", install=False)
    with pytest.raises(AssertionError, match=f"{first.kubectl.namespace} has the release 'b-qd' already"):
        third.install(wait=False)


def test_the_end_of_one_release_costs_the_other_no_request(
    first: Release, second: Release, traffic: Callable[..., Traffic]
) -> None:
    running = traffic(second, MODEL, rate=10)
    with running.around("uninstall of the other") as window:
        first.kubectl("delete", "models.quarterdeck.dev", "--all")
        first.uninstall()
        first.kubectl.wait_all("pods", "app.kubernetes.io/part-of=quarterdeck", lambda pods: not pods, "gone")
    window.assert_no_errors()
    running.stop()
    assert not cluster_roles(first) and len(cluster_roles(second)) == 2
    second.apply_model("later", **TWICE)
    second.wait_ready("later")


def test_a_namespace_goes_with_a_release_and_models_that_run_in_it(second: Release, kubectl: Kubectl) -> None:
    """No finalizer waits for an operator that is gone already."""
    kinds = "models.quarterdeck.dev,teams.quarterdeck.dev,prompts.quarterdeck.dev,pods"
    metadata = {"name": "left"}
    version = "quarterdeck.dev/v1alpha1"
    second.kubectl.apply(
        {"apiVersion": version, "kind": "Team", "metadata": metadata, "spec": {}},
        {"apiVersion": version, "kind": "Prompt", "metadata": metadata, "spec": {"text": "Hello"}},
    )
    second.close()
    kubectl("delete", "namespace", second.kubectl.namespace, "--timeout=600s", seconds=620)
    with pytest.raises(KubectlError):
        kubectl("get", "namespace", second.kubectl.namespace)
    assert not second.kubectl("get", kinds, "--output=name", "--ignore-not-found").split()
    kubectl("delete", *cluster_roles(second))
