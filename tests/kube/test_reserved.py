from typing import Any

import pytest

from quarterdeck.kube.compile.compiler import compile_objects
from quarterdeck.kube.conditions import Reason
from quarterdeck.kube.reserved import Reserved

RESERVED = Reserved(
    secrets=frozenset({"qd-admin"}), claims=frozenset({"qd-database"}), service_accounts=frozenset({"qd-operator"})
)


def obj(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": "a", "uid": "u", "generation": 1}
    return {"apiVersion": "quarterdeck.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def endpoint(secret: str) -> dict[str, Any]:
    return {"endpoints": [{"url": "http://evil.example.com", "secretRef": {"name": secret, "key": "key"}}]}


@pytest.mark.parametrize(
    ("kind", "spec", "where"),
    [
        ("Model", endpoint("qd-admin"), "spec.endpoints[0].secretRef"),
        ("Model", endpoint("sh.helm.release.v1.qd.v1"), "spec.endpoints[0].secretRef"),
        ("Model", {"source": {"uri": "a/b", "secretRef": {"name": "qd-admin", "key": "key"}}}, "spec.source.secretRef"),
        ("Model", {"source": {"uri": "pvc://qd-database"}}, "spec.source.uri"),
        ("Model", {"source": {"uri": "pvc://qd-database/x"}}, "spec.source.uri"),
        ("Model", {"source": {"uri": "a/b", "cache": {"mode": "pvc", "claim": "qd-database"}}}, "cache.claim"),
        ("ModelAdapter", {"modelRef": {"name": "m"}, "source": {"uri": "pvc://qd-database/x"}}, "spec.source.uri"),
    ],
)
def test_an_object_that_names_what_is_the_platforms_own_is_refused(kind: str, spec: Any, where: str) -> None:
    result = compile_objects({}, [obj(kind, spec)], {}, reserved=RESERVED)
    verdict = result.verdicts[kind, "a"]
    assert not verdict.is_accepted and verdict.reason == Reason.INVALID_SPEC
    assert where in verdict.message and "platform's own" in verdict.message
    assert result.endpoint_keys == () and result.config is not None and result.config.models == ()
    # Reserved only here: the same object is accepted where the name is nobody's.
    if "sh.helm" not in str(spec):
        assert compile_objects({}, [obj(kind, spec)], {}).verdicts[kind, "a"].is_accepted


def test_other_names_are_not_reserved() -> None:
    result = compile_objects({}, [obj("Model", endpoint("openai"))], {}, reserved=RESERVED)
    assert result.verdicts["Model", "a"].is_accepted and len(result.endpoint_keys) == 1


@pytest.mark.parametrize(
    "spec",
    [
        {"serviceAccountName": "qd-operator"},
        {"serviceAccount": "qd-operator"},
        {"volumes": [{"name": "x", "secret": {"secretName": "qd-admin"}}]},
        {"volumes": [{"name": "x", "projected": {"sources": [{"secret": {"name": "qd-admin"}}]}}]},
        {"volumes": [{"name": "x", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "qd-admin"}}}]},
        {"volumes": [{"name": "x", "persistentVolumeClaim": {"claimName": "qd-database"}}]},
        {"containers": [{"name": "x", "envFrom": [{"secretRef": {"name": "qd-admin"}}]}]},
        {"initContainers": [{"env": [{"name": "K", "valueFrom": {"secretKeyRef": {"name": "qd-admin"}}}]}]},
    ],
)
def test_a_pod_template_that_names_it_in_any_way_has_a_problem(spec: dict[str, Any]) -> None:
    assert "platform's own" in str(RESERVED.problem_of_template({"spec": spec}))
    assert Reserved().problem_of_template({"spec": spec}) is None


def test_a_template_nested_without_end_is_read() -> None:
    deep: Any = {"secretName": "qd-admin"}
    for _ in range(20_000):
        deep = {"x": deep}
    assert RESERVED.problem_of_template({"spec": deep}) is not None
