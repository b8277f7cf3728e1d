"""CRDs as the API server takes them, as far as that can be seen without one (tests/cluster has one)."""

from collections.abc import Iterator
from typing import Any

import pytest
import re2
from pydantic import Field

from quarterdeck.kube.resources.object import Resource
from quarterdeck.kube.resources.registry import RESOURCES
from quarterdeck.kube.schema import PRESERVE, SchemaError, definition, schema
from quarterdeck.kube.shape import VALIDATIONS, Shape

ids = [each.kind for each in RESOURCES]
STRUCTURAL = {
    *("type", "description", "properties", "items", "required", "default", "enum", "pattern", "format", "nullable"),
    *("minLength", "maxLength", "minItems", "maxItems", "maxProperties", "minimum", "maximum", "additionalProperties"),
    *("exclusiveMinimum", "exclusiveMaximum", "anyOf", PRESERVE, VALIDATIONS),
    *("x-kubernetes-int-or-string", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
}


def parts_of(shape: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, shape
    for name, each in shape.get("properties", {}).items():
        yield from parts_of(each, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if name in shape:
            yield from parts_of(shape[name], f"{path}[]")


@pytest.mark.parametrize("resource", RESOURCES, ids=ids)
def test_a_schema_has_only_what_a_structural_schema_may_have(resource: type[Resource]) -> None:
    for path, shape in parts_of(schema(resource), resource.kind):
        assert shape.keys() <= STRUCTURAL, path
        assert "type" in shape or PRESERVE in shape or "x-kubernetes-int-or-string" in shape or "enum" in shape, path
        assert not ("properties" in shape and "additionalProperties" in shape), path
        if "anyOf" in shape:
            assert shape["anyOf"] == [{"type": "integer"}, {"type": "string"}], path
        if "pattern" in shape:
            re2.compile(shape["pattern"])
        if "required" in shape:
            assert set(shape["required"]) <= shape["properties"].keys(), path


@pytest.mark.parametrize("resource", RESOURCES, ids=ids)
def test_every_field_has_a_description_in_a_clusters_terms(resource: type[Resource]) -> None:
    for path, shape in parts_of(schema(resource), resource.kind):
        if path.count(".") and not path.endswith(("[]", ".metadata")):
            assert shape.get("description"), path
        text = shape.get("description", "")
        assert "None:" not in text, path
        assert "api_key" not in text, path


@pytest.mark.parametrize("resource", RESOURCES, ids=ids)
def test_every_rule_has_a_message_for_people(resource: type[Resource]) -> None:
    for path, shape in parts_of(schema(resource), resource.kind):
        for rule in shape.get(VALIDATIONS, ()):
            assert len(rule["message"]) > 10, path
            assert "self" in rule["rule"], path


def test_a_model_can_be_scaled_and_has_a_status() -> None:
    (version,) = definition(RESOURCES[0])["spec"]["versions"]
    assert version["subresources"]["scale"]["specReplicasPath"] == ".spec.scaling.replicas"
    assert version["subresources"]["status"] == {}


def test_what_none_can_express_is_refused() -> None:
    class Odd(Shape):
        """Odd."""

        value: int | bool = Field(default=1)
        """A number or a truth."""

    class OddResource(Resource):
        """Odd."""

        kind = "Odd"
        spec: Odd
        status: Odd = Odd()

    with pytest.raises(SchemaError, match=r"spec\.value"):
        schema(OddResource)
