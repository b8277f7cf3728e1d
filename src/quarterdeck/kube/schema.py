"""CustomResourceDefinitions from the classes: structural OpenAPI v3 schemas, CEL rules, columns, subresources.

pydantic's JSON schema is translated, because the API server takes less than JSON Schema: no `$ref`, no `anyOf` with
null, no `additionalProperties: false` (unknown fields are pruned), no `patternProperties`, and RE2 instead of
look-around in patterns.
"""

import copy
import re
from collections.abc import Mapping
from typing import Any

from pydantic.alias_generators import to_camel

from quarterdeck.kube.names import GROUP, VERSION
from quarterdeck.kube.resources.object import Resource
from quarterdeck.kube.shape import VALIDATIONS

PRESERVE = "x-kubernetes-preserve-unknown-fields"
CATEGORY = "quarterdeck"
"""`kubectl get quarterdeck` lists all resources."""
MAX_PROPERTIES = 100
"""Of a mapping without a bound of its own; the cost of its rules is estimated from it."""
DEFAULTED = frozenset({"spec.quantization", "spec.scaling"})
"""Sections of a spec that are filled in where they are left out: columns and the scale subresource read them."""

_KEPT = (
    *("type", "format", "enum", "pattern", "minLength", "maxLength", "minItems", "maxItems", "maxProperties"),
    *("minimum", "maximum", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
)
_API_VERSION = (
    "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized "
    "schemas to the latest internal value, and may reject unrecognized values."
)
_KIND = (
    "Kind is a string value representing the REST resource this object represents. Servers may infer this from the "
    "endpoint the client submits requests to. Cannot be updated. In CamelCase."
)


class SchemaError(ValueError):
    """A class has what a structural schema can't express."""


def definition(resource: type[Resource]) -> dict[str, Any]:
    """The CustomResourceDefinition of a class."""
    kind, singular = resource.kind, resource.kind.lower()
    subresources: dict[str, Any] = {"status": {}}
    if resource.is_scalable:
        subresources["scale"] = {
            "specReplicasPath": ".spec.scaling.replicas",
            "statusReplicasPath": ".status.replicas.ready",
            "labelSelectorPath": ".status.selector",
        }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{GROUP}", "labels": {"app.kubernetes.io/part-of": "quarterdeck"}},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": resource.plural,
                "singular": singular,
                "shortNames": list(resource.short_names),
                "categories": [CATEGORY],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [
                        {"name": each.name, "type": each.type, "jsonPath": each.path}
                        | ({"priority": each.priority} if each.priority else {})
                        for each in resource.columns
                    ],
                    "subresources": subresources,
                    "schema": {"openAPIV3Schema": schema(resource)},
                }
            ],
        },
    }


def schema(resource: type[Resource]) -> dict[str, Any]:
    """The structural schema of a class. Raises SchemaError for what none can express."""
    source = resource.model_json_schema(by_alias=True)
    definitions = source.get("$defs", {})
    properties = {
        name: _translated(source["properties"][name], definitions, name, defaults=name == "spec")
        for name in ("spec", "status")
    }
    properties["status"].pop("default", None)
    found: dict[str, Any] = {
        "type": "object",
        "description": _text(source.get("description", "")),
        "properties": {
            "apiVersion": {"type": "string", "description": _API_VERSION},
            "kind": {"type": "string", "description": _KIND},
            "metadata": {"type": "object"},
            **properties,
        },
    }
    conditions = found["properties"]["status"]["properties"]["conditions"]
    conditions |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    if "spec" in source["required"]:
        found["required"] = ["spec"]
    if resource.schema_rules:
        found[VALIDATIONS] = [{"rule": each.rule, "message": each.message} for each in resource.schema_rules]
    return found


def _translated(
    source: Mapping[str, Any], definitions: Mapping[str, Any], where: str, *, defaults: bool
) -> dict[str, Any]:
    """One value's schema. `defaults`: whether the API server fills in defaults, as in a spec, not in a status."""
    given = _resolved(source, definitions, where)
    found: dict[str, Any] = {}
    if text := given.get("description"):
        found["description"] = _text(text)
    found |= {key: given[key] for key in _KEPT if key in given}
    for bound in ("Minimum", "Maximum"):
        if f"exclusive{bound}" in given:
            found[bound.lower()], found[f"exclusive{bound}"] = given[f"exclusive{bound}"], True
    if "const" in given:
        found["enum"] = [given["const"]]
    if given.get("x-kubernetes-int-or-string"):
        found["x-kubernetes-int-or-string"] = True
        found["anyOf"] = [{"type": "integer"}, {"type": "string"}]
        found.pop("type", None)
    rules = list(given.get(VALIDATIONS, ()))
    match given.get("type"):
        case "object":
            rules += _object(found, given, definitions, where, defaults)
        case "array":
            found["items"] = _translated(given.get("items", {}), definitions, f"{where}[]", defaults=defaults)
        case None if "x-kubernetes-int-or-string" not in found and "enum" not in found:
            found[PRESERVE] = found["nullable"] = True  # else the API server drops a null
    if rules:
        found[VALIDATIONS] = rules
    default = given.get("default")
    if defaults and isinstance(default, bool | int | float | str) and default != "":
        found["default"] = default
    elif defaults and where in DEFAULTED:
        found["default"] = _without_none(default)
    return found


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_none(each) for name, each in value.items() if each is not None}
    return value


def _object(
    found: dict[str, Any], given: Mapping[str, Any], definitions: Mapping[str, Any], where: str, defaults: bool
) -> list[dict[str, str]]:
    """Members of an object or mapping, into `found`; returns rules of a mapping's keys."""
    if "properties" in given:
        found["properties"] = {}
        for name, each in given["properties"].items():
            if each.get("type") != "null":  # a field of the settings class that the resource does not have
                field = _translated(each, definitions, f"{where}.{name}", defaults=defaults)
                if "description" in field:
                    field["description"] = _in_camel_case(field["description"], given["properties"])
                found["properties"][name] = field
        if required := given.get("required"):
            found["required"] = required
        return []
    values, keys = given.get("additionalProperties"), given.get("propertyNames", {})
    if "patternProperties" in given:
        ((pattern, values),) = given["patternProperties"].items()
        keys = {**keys, "pattern": pattern}
    if values is True or values is None or values == {}:
        found[PRESERVE] = True
        return []
    found["additionalProperties"] = _translated(values, definitions, f"{where}.<name>", defaults=defaults)
    found.setdefault("maxProperties", MAX_PROPERTIES)
    conditions = []
    if "pattern" in keys:
        conditions.append(f"k.matches('{keys['pattern']}')")
    if "maxLength" in keys:
        conditions.append(f"k.size() <= {keys['maxLength']}")
    if not conditions:
        return []
    bound = f" of at most {keys['maxLength']} characters" if "maxLength" in keys else ""
    shape = f"match {keys['pattern']}" if "pattern" in keys else "be names"
    return [{"rule": f"self.all(k, {' && '.join(conditions)})", "message": f"names must {shape}{bound}"}]


def _resolved(source: Mapping[str, Any], definitions: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The schema with references and alternatives replaced by what they stand for."""
    given = dict(copy.deepcopy(source))
    if reference := given.pop("$ref", None):
        target = _resolved(definitions[reference.rsplit("/", 1)[1]], definitions, where)
        rules = [*target.get(VALIDATIONS, ()), *given.get(VALIDATIONS, ())]
        given = target | given | ({VALIDATIONS: rules} if rules else {})
    alternatives = [each for each in given.pop("anyOf", ()) if each.get("type") != "null"]
    if len(alternatives) == 1:
        inner = _resolved(alternatives[0], definitions, where)
        rules = [*inner.get(VALIDATIONS, ()), *given.get(VALIDATIONS, ())]
        given = inner | given | ({VALIDATIONS: rules} if rules else {})
    elif alternatives:
        given |= _joined(alternatives, where)
    return given


def _joined(alternatives: list[dict[str, Any]], where: str) -> dict[str, Any]:
    """Numbers that may be written as text; or a value of any form."""
    types = {each.get("type") for each in alternatives}
    if types <= {"integer", "number", "string"} and "string" in types:
        found: dict[str, Any] = {"x-kubernetes-int-or-string": True}
        for each in alternatives:
            if each["type"] == "string":
                found |= {key: each[key] for key in ("pattern", "maxLength") if key in each}
            else:
                found |= {key: each[key] for key in each if key.lower().endswith(("minimum", "maximum"))}
        if "number" in types:
            found["pattern"] = AMOUNT
        return found
    if types & {"object", "array"}:
        return {}  # any value
    raise SchemaError(f"{where}: a structural schema can't have alternatives of {sorted(map(str, types))}")


AMOUNT = r"^[0-9]{1,9}([.][0-9]{1,6})?$"
"""A decimal number that every amount of `settings` takes, instead of pydantic's pattern with look-around."""


def _in_camel_case(text: str, names: Mapping[str, Any]) -> str:
    """The docstring of a `settings` field names its neighbours as Python does."""
    return re.sub(
        "`([a-z]+(?:_[a-z]+)+)`", lambda found: f"`{name}`" if (name := to_camel(found[1])) in names else found[0], text
    )


def _text(text: str) -> str:
    """A docstring as one paragraph a blank line, in a cluster's terms."""
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    return "\n".join(paragraphs).replace("None:", "Unset:").strip()
