"""Patches of a pod template, as `kubectl patch` applies them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.operator.render.strategic_merge import PatchError, merged

TEMPLATE = {
    "metadata": {"labels": {"a": "1"}, "finalizers": ["x"]},
    "spec": {
        "nodeSelector": {"gpu": "h100"},
        "tolerations": [{"key": "gpu"}],
        "containers": [
            {"name": "engine", "image": "i:1", "env": [{"name": "A", "value": "1"}], "args": ["--a"]},
            {"name": "side", "image": "s:1"},
        ],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    },
}
JSON = st.recursive(
    st.one_of(st.none(), st.integers(), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["spec", "containers", "name", "env", "$patch", "metadata", "x", "volumes"]),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("patch", "path", "value"),
    [
        ({"spec": {"nodeSelector": {"zone": "a"}}}, ("spec", "nodeSelector"), {"gpu": "h100", "zone": "a"}),
        ({"spec": {"nodeSelector": {"gpu": None}}}, ("spec", "nodeSelector"), {}),
        ({"spec": {"nodeSelector": {"$patch": "replace", "b": "2"}}}, ("spec", "nodeSelector"), {"b": "2"}),
        ({"spec": {"tolerations": [{"key": "b"}]}}, ("spec", "tolerations"), [{"key": "b"}]),
        ({"spec": {"hostNetwork": True}}, ("spec", "hostNetwork"), True),
        (
            {"spec": {"volumes": [{"name": "big", "emptyDir": {}}]}},
            ("spec", "volumes"),
            [{"name": "tmp", "emptyDir": {}}, {"name": "big", "emptyDir": {}}],
        ),
        (
            {"spec": {"volumes": [{"$patch": "replace"}, {"name": "only", "emptyDir": {}}]}},
            ("spec", "volumes"),
            [{"name": "only", "emptyDir": {}}],
        ),
        (
            {"spec": {"containers": [{"name": "side", "$patch": "delete"}]}},
            ("spec", "containers"),
            TEMPLATE["spec"]["containers"][:1],  # type: ignore[index]
        ),
        ({"metadata": {"finalizers": ["x", "y"]}}, ("metadata", "finalizers"), ["x", "y"]),
        ({"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}}, ("metadata", "finalizers"), []),
        (
            {"metadata": {"$retainKeys": ["labels"], "labels": {"b": "2"}}},
            ("metadata",),
            {"labels": {"a": "1", "b": "2"}},
        ),
    ],
)
def test_a_patch_is_merged_as_kubernetes_does(patch: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    found: Any = merged(TEMPLATE, patch)
    for part in path:
        found = found[part]
    assert found == value


def test_a_container_is_merged_by_its_name_and_its_variables_by_theirs() -> None:
    change = {"name": "engine", "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "9"}], "args": ["--b"]}
    engine = merged(TEMPLATE, {"spec": {"containers": [change]}})["spec"]["containers"][0]
    assert engine == {
        "name": "engine",
        "image": "i:1",
        "env": [{"name": "A", "value": "9"}, {"name": "B", "value": "2"}],
        "args": ["--b"],
    }


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ({"spec": {"containers": [{"image": "i"}]}}, r"podTemplatePatch.spec.containers\[0\]: has no 'name'"),
        ({"spec": {"containers": ["engine"]}}, r"containers\[0\]: must be an object"),
        ({"spec": {"containers": {"name": "engine"}}}, "podTemplatePatch.spec.containers: is a list, not an object"),
        ({"spec": "none"}, "podTemplatePatch.spec: is an object, not the value 'none'"),
        ({"spec": {"$patch": "swap"}}, "unknown directive"),
        ({"spec": {"nodeSelector": ["a"]}}, "is an object, not a list"),
        ({"$nonsense": 1}, "unknown directive"),
    ],
)
def test_a_patch_that_does_not_fit_is_refused_by_its_place(patch: dict[str, Any], message: str) -> None:
    with pytest.raises(PatchError, match=message):
        merged(TEMPLATE, patch)


@given(st.dictionaries(st.sampled_from(["spec", "metadata", "x"]), JSON, max_size=3))
def test_any_patch_is_merged_or_refused_and_leaves_the_template_alone(patch: dict[str, Any]) -> None:
    before = repr(TEMPLATE)
    try:
        once = merged(TEMPLATE, patch)
    except PatchError:
        return
    finally:
        assert repr(TEMPLATE) == before
    assert "$patch" not in once


def test_an_empty_patch_changes_nothing() -> None:
    assert merged(TEMPLATE, {}) == TEMPLATE
