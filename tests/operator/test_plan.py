"""Plans: what is written, and above all what is not."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.kube.names import HASH_ANNOTATION
from quarterdeck.operator.manifests import Key
from quarterdeck.operator.plan import is_subset, make_plan, quantity, stamped, view_hash

NAMES = st.sampled_from(["a", "b", "c", "d"])
VALUES = st.recursive(
    st.one_of(st.integers(0, 9), st.sampled_from(["x", "y", "1Gi", "500m"]), st.booleans()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=8,
)


def manifest(name: str, spec: Any, kind: str = "Deployment") -> dict[str, Any]:
    api = {"Deployment": "apps/v1", "Service": "v1", "PersistentVolumeClaim": "v1"}[kind]
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec}


@st.composite
def manifests(draw: st.DrawFn) -> list[dict[str, Any]]:
    names = draw(st.lists(NAMES, unique=True, max_size=4))
    return [manifest(name, draw(VALUES)) for name in names]


def server(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Objects as the API server returns what was applied: with fields of its own."""
    found = []
    for each in copy.deepcopy(manifests):
        each["metadata"] |= {"uid": each["metadata"]["name"], "resourceVersion": "7", "generation": 1}
        each["status"] = {"replicas": 1}
        found.append(each)
    return found


@given(manifests())
def test_a_plan_that_was_carried_out_is_empty(desired: list[dict[str, Any]]) -> None:
    plan = make_plan(desired, [])
    assert make_plan(desired, server(list(plan.apply))).is_empty


@given(manifests(), manifests())
def test_a_plan_applies_and_deletes_exactly_the_differences(
    before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> None:
    observed = server(list(make_plan(before, []).apply))
    plan = make_plan(after, observed)
    live = {each["metadata"]["name"]: each for each in observed}
    for each in plan.delete:
        del live[each["metadata"]["name"]]
    for each in plan.apply:
        live[each["metadata"]["name"]] = server([each])[0]
    assert sorted(live) == sorted(each["metadata"]["name"] for each in after)
    assert make_plan(after, list(live.values())).is_empty


@given(manifests())
def test_a_plan_does_not_depend_on_the_order(desired: list[dict[str, Any]]) -> None:
    assert make_plan(desired, []) == make_plan(list(reversed(desired)), [])


@given(VALUES)
def test_a_value_is_part_of_itself_and_of_itself_with_more(value: Any) -> None:
    assert is_subset(value, copy.deepcopy(value))
    assert is_subset({"a": value}, {"a": value, "added": {"by": "others"}})


def test_a_field_edited_by_hand_is_applied_again() -> None:
    desired = manifest("m", {"replicas": 1, "paused": False})
    observed = server([stamped(desired)])
    observed[0]["spec"]["replicas"] = 7
    assert [each["spec"] for each in make_plan([desired], observed).apply] == [desired["spec"]]


def test_fields_of_others_are_left_alone() -> None:
    desired = manifest("m", {"template": {"spec": {"containers": [{"name": "engine", "image": "i"}]}}})
    observed = server([stamped(desired)])
    observed[0]["metadata"]["annotations"]["sidecar.mesh/status"] = "injected"
    observed[0]["spec"]["template"]["spec"]["containers"].insert(0, {"name": "proxy", "image": "mesh"})
    observed[0]["spec"]["revisionHistoryLimit"] = 3
    assert make_plan([desired], observed).is_empty


def test_a_field_that_is_not_desired_any_more_is_removed() -> None:
    observed = server([stamped(manifest("m", {"replicas": 1, "paused": True}))])
    assert len(make_plan([manifest("m", {"replicas": 1})], observed).apply) == 1


def test_a_removed_annotation_is_applied_again() -> None:
    desired = manifest("m", {})
    observed = server([stamped(desired)])
    del observed[0]["metadata"]["annotations"][HASH_ANNOTATION]
    assert len(make_plan([desired], observed).apply) == 1


def test_an_object_that_is_being_deleted_is_waited_for() -> None:
    desired = manifest("m", {})
    observed = server([stamped(desired)])
    observed[0]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    plan = make_plan([desired], observed)
    assert plan.is_empty and plan.wait == (Key("Deployment", "m"),)
    assert make_plan([], observed).is_empty


def test_claims_and_services_are_applied_before_deployments_and_deleted_after_them() -> None:
    kinds = ["Deployment", "Service", "PersistentVolumeClaim"]
    desired = [manifest("m", {}, kind) for kind in kinds]
    assert [each["kind"] for each in make_plan(desired, []).apply] == list(reversed(kinds))
    assert [each["kind"] for each in make_plan([], server(desired)).delete] == kinds


def test_a_value_that_the_server_rewrites_is_applied_once() -> None:
    """An admission webhook replaces the image: applying again would change nothing, for ever."""
    desired = manifest("m", {"image": "registry/app"})
    answer = server([stamped(desired)])[0]
    answer["spec"]["image"] = "mirror/app"
    assert len(make_plan([desired], [answer]).apply) == 1
    settled = {Key("Deployment", "m"): view_hash(stamped(desired), answer)}
    assert make_plan([desired], [answer], settled).is_empty
    answer["spec"]["image"] = "someone/else"
    assert len(make_plan([desired], [answer], settled).apply) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [("1000m", "1"), ("1Gi", "1024Mi"), ("0.5", "500m"), (2, "2"), ("1e3", "1k"), ("100M", "100000000")],
)
def test_equal_quantities_are_equal(one: Any, other: Any) -> None:
    assert is_subset({"cpu": one}, {"cpu": other})


@pytest.mark.parametrize("text", ["", "Gi", "abc", "1Xi", "NaN", "inf", "1" * 50])
def test_what_is_no_quantity_is_none(text: str) -> None:
    assert quantity(text) is None


@given(st.text(max_size=12))
def test_parsing_a_quantity_never_fails(text: str) -> None:
    quantity(text)


@pytest.mark.parametrize(
    ("desired", "live"),
    [
        ({"env": [{"name": "A", "value": ""}]}, {"env": [{"name": "A"}]}),
        ({"emptyDir": {}}, {"emptyDir": None}),
        ({"readOnly": False}, {}),
        ({"items": []}, {}),
    ],
)
def test_what_the_server_leaves_out_because_it_is_empty_is_no_difference(desired: Any, live: Any) -> None:
    assert is_subset(desired, live)


@pytest.mark.parametrize(
    ("desired", "live"),
    [
        ({"a": True}, {"a": 1}),
        ({"a": "1"}, {"a": "2"}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"ports": [{"name": "http", "port": 1}]}, {"ports": [{"name": "http", "port": 2}]}),
        ({"ports": [{"name": "http"}]}, {"ports": []}),
        ({"a": {"b": 1}}, {"a": [1]}),
    ],
)
def test_differences_are_found(desired: Any, live: Any) -> None:
    assert not is_subset(desired, live)


def test_stamping_is_stable_and_leaves_the_manifest_alone() -> None:
    desired = manifest("m", {"a": 1})
    before = json.dumps(desired)
    assert stamped(stamped(desired)) == stamped(desired)
    assert json.dumps(desired) == before
