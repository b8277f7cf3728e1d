"""Manifests while a canary runs, and the gateways' figures."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from quarterdeck.kube.names import REVISION_LABEL
from quarterdeck.kube.resources.model import Model
from quarterdeck.kube.resources.model_status import CanaryStatus
from quarterdeck.operator.canary import Figures
from quarterdeck.operator.manifests import Manifest, labels_of
from quarterdeck.operator.observed import Observed
from quarterdeck.operator.render import deployment
from quarterdeck.operator.render.request import CANARY, Change, RenderRequest
from quarterdeck.operator.rollout import Canaries, Staged, change_of, find, read_figures
from quarterdeck.operator.settings import OperatorConfig

START = datetime(2026, 1, 1, tzinfo=UTC)
CONFIG = OperatorConfig()


class Cluster:
    """Applies what is staged; pods are ready at once."""

    def __init__(self) -> None:
        self.now = START
        self.counters: dict[str, dict[str, Any]] = {}
        self.canaries = Canaries(lambda: self.counters, clock=lambda: 0.0, now=lambda: self.now)
        self.model = self.parsed(seed=1)
        self.children: list[Manifest] = []
        self.staged = Staged([], None)  # type: ignore[arg-type]

    def parsed(self, **args: Any) -> Model:
        steps = [{"weight": 50, "pauseSeconds": 10}]
        spec = {
            "engine": {"type": "sim", "args": args},
            "backend": "Deployment",
            "scaling": {"min": 4},
            "rollout": {"canary": {"steps": steps, "abort": {"minRequests": 5}}},
        }
        return Model.parse({"metadata": {"name": "tiny", "uid": "u"}, "spec": spec})

    def edit(self, **args: Any) -> None:
        self.model = self.parsed(**args).model_copy(update={"status": self.model.status})

    def step(self, seconds: float = 1.0) -> Staged:
        self.now += timedelta(seconds=seconds)
        request = RenderRequest(self.model, "models", CONFIG, 4)
        seen = Observed(tuple(self.children), tuple(self.pods()), ())
        self.staged = self.canaries.stage(request, deployment.render(request), seen, None)
        self.children = [self.as_applied(each) for each in self.staged.manifests]
        status = self.model.status.model_copy(update={"canary": self.staged.decision.status})
        self.model = self.model.model_copy(update={"status": status})
        return self.staged

    def as_applied(self, manifest: Manifest) -> Manifest:
        if manifest["kind"] != "Deployment":
            return manifest
        replicas = manifest["spec"]["replicas"]
        status = {"replicas": replicas, "readyReplicas": replicas, "updatedReplicas": replicas, "observedGeneration": 1}
        metadata = {**manifest["metadata"], "generation": 1}
        template = {**manifest["spec"]["template"]}
        template["metadata"] = {**template["metadata"], "creationTimestamp": None}  # as the API server adds it
        return {**manifest, "metadata": metadata, "spec": {**manifest["spec"], "template": template}, "status": status}

    def pods(self) -> list[Manifest]:
        found = []
        for each in self.children:
            if each["kind"] == "Deployment":
                labels = each["spec"]["template"]["metadata"]["labels"]
                status = {"conditions": [{"type": "Ready", "status": "True"}]}
                name = each["metadata"]["name"]
                for number in range(each["spec"]["replicas"]):
                    metadata = {"name": f"{name}-{number}", "labels": labels}
                    found.append({"kind": "Pod", "metadata": metadata, "status": status})
        return found

    def count(self, revision: str, attempts: int, failures: int = 0, gateway: str = "gw") -> None:
        counts = {"attempts": attempts, "failures": failures, "ttft_ms": {"count": 0, "buckets": []}}
        self.counters.setdefault(gateway, {})[f"tiny@{revision}"] = counts


def engine(staged: Staged, track: str = "stable") -> Manifest | None:
    return find(staged.manifests, "model-tiny" if track == "stable" else f"model-tiny-{track}")


def service_revision(staged: Staged, name: str = "model-tiny") -> str:
    found = next(each for each in staged.manifests if each["kind"] == "Service" and each["metadata"]["name"] == name)
    return labels_of(found)[REVISION_LABEL]


def revision(manifest: Manifest | None) -> str:
    assert manifest is not None
    return deployment.revision_of(manifest)


def test_a_revision_has_the_same_hash_in_both_tracks() -> None:
    request = RenderRequest(Cluster().model, "models", CONFIG, 1)
    one, other = deployment.render(request)[0], deployment.render(replace(request, track=CANARY))[0]
    assert revision(one) == revision(other)
    assert one["spec"]["selector"] != other["spec"]["selector"]


def test_a_change_runs_beside_the_revision_in_use_and_then_replaces_it() -> None:
    cluster = Cluster()
    old = revision(engine(cluster.step()))
    assert cluster.staged.split is None and service_revision(cluster.staged) == old
    cluster.edit(seed=2)
    held = engine(cluster.step())
    assert revision(held) == old, "the stable object keeps its template"
    assert held is not None and "creationTimestamp" not in held["spec"]["template"]["metadata"]
    assert cluster.staged.split is None and engine(cluster.staged, "canary") is None
    cluster.step(2)
    assert cluster.staged.split is not None and cluster.staged.split.weight == 0
    assert engine(cluster.staged, "canary") is None, "gateways know of two revisions before there are two"
    cluster.step(2)
    new = revision(engine(cluster.staged, "canary"))
    assert new != old and service_revision(cluster.staged, "model-tiny-canary") == new
    cluster.step()
    split = cluster.staged.split
    assert split is not None and (split.stable, split.candidate, split.weight) == (old, new, 50)
    candidate = engine(cluster.staged, "canary")
    assert candidate is not None and candidate["spec"]["replicas"] == 2, "half of the requests, half of the replicas"
    cluster.count(new, 100)  # before this operator looked
    cluster.count(old, 100)
    cluster.step()
    cluster.count(new, 120)
    cluster.count(old, 120)
    cluster.step(20)
    assert revision(engine(cluster.staged)) == old, "gateways know the last weight before a replica ends"
    cluster.step(2)
    promoted = engine(cluster.staged)
    assert promoted is not None and revision(promoted) == new
    assert promoted["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert service_revision(cluster.staged) == old, "gateways know it by this name until the split is gone"
    for _ in range(4):
        cluster.step()
    assert engine(cluster.staged, "canary") is None and cluster.staged.split is None
    ended = engine(cluster.staged)
    assert ended is not None and (revision(ended), service_revision(cluster.staged)) == (new, new)
    assert ended["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_a_bad_candidate_ends_and_the_revision_in_use_stays() -> None:
    cluster = Cluster()
    old = revision(engine(cluster.step()))
    cluster.edit(seed=2)
    for _ in range(6):
        cluster.step()
    new = cluster.staged.split.candidate if cluster.staged.split else ""
    cluster.count(new, 0)
    cluster.count(old, 0)
    cluster.step()
    cluster.count(new, 8, failures=4)
    cluster.count(new, 8, failures=4, gateway="other")
    cluster.step()
    assert cluster.staged.decision.event is not None
    assert "8 of 16 requests failed" in cluster.staged.decision.event[1]
    assert cluster.staged.split is not None and cluster.staged.split.weight == 0
    for _ in range(4):
        cluster.step()
        assert revision(engine(cluster.staged)) == old and engine(cluster.staged, "canary") is None
    assert cluster.staged.split is None
    status = cluster.model.status.canary
    assert status is not None and status.phase == "Aborted"


def test_figures_that_are_missing_or_malformed_count_as_nothing() -> None:
    for counts in (None, 7, [], {}, {"attempts": "x"}, {"ttft_ms": []}, {"ttft_ms": {"buckets": [1, [2], ["a", 3]]}}):
        assert read_figures(counts) == Figures()
    found = read_figures({"attempts": 3, "failures": 1, "ttft_ms": {"count": 2, "buckets": [[10, 1], [20.0, 2]]}})
    assert found == Figures(3, 1, ((10.0, 1), (20.0, 2)), 2)


@pytest.mark.parametrize(("replicas", "engines"), [(1, 1), (4, 2), (10, 5), (11, 6)])
def test_a_canary_needs_the_gpus_of_its_largest_step_and_says_so_until_it_ends(replicas: int, engines: int) -> None:
    spec = {
        "source": {"uri": "hf://org/model"},
        "backend": "Deployment",
        "resources": {"accelerator": "h100", "tensorParallel": 2},
        "rollout": {"canary": {"steps": [{"weight": 10}, {"weight": 50}]}},
    }
    model = Model.parse({"metadata": {"name": "tiny", "uid": "u"}, "spec": spec})
    request = RenderRequest(model, "models", CONFIG, replicas)
    for phase in ("Preparing", "Running", "Promoting"):
        status = CanaryStatus(phase=phase, stable="a", candidate="b")
        assert change_of(request, status) == Change("NewCluster", engines * 2)
    for phase in ("Aborting", "Aborted"):
        assert change_of(request, CanaryStatus(phase=phase, stable="a", candidate="b")) is None
