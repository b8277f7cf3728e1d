"""Which adapters a Model's replicas should have."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.kube.conditions import Reason
from quarterdeck.kube.resources.adapter import ModelAdapter
from quarterdeck.kube.resources.model import Model
from quarterdeck.operator.adapters.wanted import choose, engine_name, is_ours, public_name
from quarterdeck.operator.render.weights import adapter_path


def model(places: int = 4, **spec: Any) -> Model:
    return Model.parse(
        {"metadata": {"name": "base"}, "spec": {"engine": {"type": "sim"}, "adapters": {"max": places}, **spec}}
    )


def adapter(name: str, uri: str = "file:///a", created: str = "2026-01-01T00:00:00Z", **source: Any) -> ModelAdapter:
    metadata = {"name": name, "uid": f"uid-{name}", "creationTimestamp": created}
    return ModelAdapter.parse(
        {"metadata": metadata, "spec": {"modelRef": {"name": "base"}, "source": {"uri": uri, **source}}}
    )


def test_the_oldest_have_the_places() -> None:
    adapters = [adapter(name, created=f"2026-01-0{day}T00:00:00Z") for name, day in (("c", 3), ("a", 1), ("b", 2))]
    wanted, refused = choose(model(2), adapters)
    assert [each.name for each in wanted] == ["a", "b"]
    assert refused["c"].reason == Reason.TOO_MANY_ADAPTERS


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///models/poet", "/models/poet"),
        ("hf://acme/poet", "acme/poet"),
        ("acme/poet", "acme/poet"),
        ("pvc://shared/poet/v2", "/adapters/shared/poet/v2"),
        ("pvc://weights/poet", "/weights/poet"),
    ],
)
def test_an_address_is_a_folder_of_the_container_or_an_id_of_the_hub(uri: str, path: str) -> None:
    wanted, refused = choose(model(source={"uri": "pvc://weights/base"}), [adapter("poet", uri)])
    assert refused == {}
    assert wanted[0].path == path


@pytest.mark.parametrize("uri", ["s3://bucket/x", "pvc://", "pvc://claim/../../etc", "packaged:x", ""])
def test_another_address_has_no_path(uri: str) -> None:
    assert adapter_path(model(), uri) == ""


def test_what_an_engine_can_not_do_is_said() -> None:
    _, refused = choose(model(), [adapter("poet", "acme/poet", revision="v2")])
    assert "spec.source.revision" in refused["poet"].message
    _, refused = choose(model(), [adapter("poet", "acme/poet", secretRef={"name": "other", "key": "token"})])
    assert "spec.source.secretRef" in refused["poet"].message
    token = {"name": "hub", "key": "token"}
    same = model(source={"uri": "acme/base", "secretRef": token})
    assert choose(same, [adapter("poet", "acme/poet", secretRef=token)])[1] == {}


def test_another_source_or_another_object_is_another_name_in_the_engine() -> None:
    one = adapter("poet")
    again = one.model_copy(update={"metadata": one.metadata.model_copy(update={"uid": "another"})})
    names = {engine_name(one), engine_name(again), engine_name(adapter("poet", "file:///b"))}
    assert len(names) == 3
    assert engine_name(one) == engine_name(adapter("poet"))


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,40}", fullmatch=True))
def test_the_operator_knows_its_own_names(public: str) -> None:
    name = engine_name(
        adapter("poet").model_copy(update={"spec": adapter("poet").spec.model_copy(update={"served_name": public})})
    )
    assert is_ours(name)
    assert public_name(name) == public
    assert not is_ours(public)
