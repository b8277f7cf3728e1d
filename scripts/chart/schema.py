"""values.schema.json: unknown keys are refused, a value has the type of its default or the one its comment states.

JSON Schema draft 7, which Helm 3 and 4 read. `config` is quarterdeck.yaml's own schema, so that a wrong setting fails
`helm install` and no pod.
"""

import json
from typing import Any

from chart.values import Value
from quarterdeck.operator.settings import Accelerator, Pod, ScalingDefaults
from quarterdeck.settings.config import Config

_STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
_QUANTITY = {"type": ["string", "number"], "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"}

DEFINITIONS: dict[str, dict[str, Any]] = {
    "names": {"type": "array", "items": {"type": "string", "minLength": 1}},
    "strings": _STRINGS,
    "digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
    "pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "port": {"type": "integer", "minimum": 1, "maximum": 65535},
    "quantity": _QUANTITY,
    "resources": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "requests": {"type": "object", "additionalProperties": _QUANTITY},
            "limits": {"type": "object", "additionalProperties": _QUANTITY},
            "claims": {"type": "array", "items": {"type": "object"}},
        },
    },
    "env": {
        "type": "array",
        "items": {
            "type": "object",
            "additionalProperties": False,
            "required": ["name"],
            "properties": {"name": {"type": "string"}, "value": {"type": "string"}, "valueFrom": {"type": "object"}},
        },
    },
    "peers": {
        "type": "array",
        "items": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "podSelector": {"type": "object"},
                "namespaceSelector": {"type": "object"},
                "ipBlock": {"type": "object"},
            },
        },
    },
}


def schema(values: Value) -> str:
    """The text of values.schema.json."""
    definitions = {**DEFINITIONS, **_config_definitions(), **_engine_definitions()}
    document = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of charts/quarterdeck",
        **_section(values),
        "definitions": definitions,
    }
    # Subcharts and `helm install` of an umbrella chart hand these in.
    document["properties"]["global"]["additionalProperties"] = True
    return json.dumps(document, indent=1, ensure_ascii=False)


def _section(section: Value) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {each.path[-1]: _of(each) for each in section.children},
    }


def _of(value: Value) -> dict[str, Any]:
    described = {"description": value.description} if value.description else {}
    if value.children:
        return {**described, **_section(value)}
    if value.schema:
        return {**described, **value.schema}
    return {**described, "type": _type(value)}


def _type(value: Value) -> str:
    """The type that a default shows. Raises ValueError for one that shows none."""
    kinds: tuple[tuple[type, str], ...] = ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"))
    for kind, name in kinds:
        if isinstance(value.default, kind):
            return name
    raise ValueError(f"{value.name}: its default {value.default!r} shows no type: add a line `# @schema`")


def _config_definitions() -> dict[str, Any]:
    """quarterdeck.yaml's classes. `models` is not required: the operator compiles it."""
    found = Config.model_json_schema(ref_template="#/definitions/{model}")
    inner = found.pop("$defs")
    found.pop("required", None)
    return {"Config": _pruned(found), **{name: _pruned(each) for name, each in inner.items()}}


def _engine_definitions() -> dict[str, Any]:
    """The operator's settings that values hand through."""
    found = {}
    for each in (Accelerator, Pod, ScalingDefaults):
        made = each.model_json_schema(by_alias=True)
        assert "$defs" not in made, each  # noqa: S101  # it would need to be merged
        found[each.__name__] = _pruned(made)
    return found


def _pruned(node: Any) -> Any:
    """Without titles, defaults and descriptions, which double the file's size; docs/reference/settings.md has them."""
    if isinstance(node, list):
        return [_pruned(each) for each in node]
    if not isinstance(node, dict):
        return node
    made = {}
    for key, each in node.items():
        if key == "properties":
            made[key] = {name: _pruned(inner) for name, inner in each.items()}
        elif key not in ("title", "default", "description"):
            made[key] = _pruned(each)
    return made
