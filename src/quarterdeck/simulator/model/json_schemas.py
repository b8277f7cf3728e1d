"""Small values that satisfy a JSON schema, as constrained decoding would generate them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from quarterdeck.simulator.model.regex_examples import example_match
from quarterdeck.simulator.model.text_generator import mix_bits, sentence

FORMATS = {
    "date": "2026-01-31",
    "time": "12:00:00Z",
    "date-time": "2026-01-31T12:00:00Z",
    "duration": "P1D",
    "email": "crew@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uri-reference": "/deck",
    "uuid": "8b4f2c1e-5a3d-4e6f-9a7b-0c1d2e3f4a5b",
    "json-pointer": "/deck",
}

DEEPEST = 24
"""Depth at which a schema counts as recursive without end; one with optional recursion ends well before."""

LONGEST = 100_000
MOST = 1_000
"""Longest text and most items; a larger value would block the event loop."""


class UnsatisfiableError(ValueError):
    """No value satisfies the schema, or none was found."""


def example_value(schema: Any, start: int = 0) -> Any:
    """Return a small value that satisfies the schema, determined by schema and `start`. Raises UnsatisfiableError."""
    try:
        return _value(schema, schema if isinstance(schema, Mapping) else {}, start, 0)
    except (TypeError, AttributeError, KeyError, IndexError, ArithmeticError, RecursionError) as error:
        # the schema is the caller's JSON: an invalid one can fail anywhere
        raise UnsatisfiableError(f"not a JSON schema: {error}") from error


def _value(schema: Any, root: Mapping[str, Any], start: int, depth: int) -> Any:
    if depth > DEEPEST:
        raise UnsatisfiableError("the schema refers to itself without end")
    if schema is True or schema == {}:
        return sentence(start, 1)
    if schema is False or not isinstance(schema, Mapping):
        raise UnsatisfiableError("nothing satisfies the schema")
    if "$ref" in schema:
        target = _resolve(str(schema["$ref"]), root)
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return _value({**target, **beside} if isinstance(target, Mapping) else target, root, start, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][mix_bits(start) % len(schema["enum"])]
    if schema.get("allOf"):
        return _value(_merged(schema, root), root, start, depth + 1)
    for choice in ("anyOf", "oneOf"):
        if schema.get(choice):
            beside = {key: value for key, value in schema.items() if key != choice}
            return _first_of(schema[choice], beside, root, start, depth)
    return _typed(_type_of(schema), schema, root, start, depth)


def _first_of(
    options: Sequence[Any], beside: Mapping[str, Any], root: Mapping[str, Any], start: int, depth: int
) -> Any:
    failure: UnsatisfiableError | None = None
    for option in options:
        try:
            return _value({**beside, **_looked_up(option, root)}, root, start, depth + 1)
        except UnsatisfiableError as error:
            failure = error
    raise failure or UnsatisfiableError("no option can be satisfied")


def _looked_up(option: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(option, Mapping):
        return {} if option is True else {"enum": [], "type": "never"}
    return option


def _type_of(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        return str(next((each for each in kind if each != "null"), "null"))
    if kind is not None:
        return str(kind)
    if "properties" in schema or "required" in schema or "additionalProperties" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    if any(key in schema for key in ("minimum", "maximum", "multipleOf", "exclusiveMinimum", "exclusiveMaximum")):
        return "number"
    return "string"


def _typed(kind: str, schema: Mapping[str, Any], root: Mapping[str, Any], start: int, depth: int) -> Any:
    if kind == "object":
        return _object(schema, root, start, depth)
    if kind == "array":
        return _array(schema, root, start, depth)
    if kind == "string":
        return _string(schema, start)
    if kind in ("integer", "number"):
        return _number(schema, kind == "integer", start)
    if kind == "boolean":
        return bool(mix_bits(start) & 1)
    if kind == "null":
        return None
    raise UnsatisfiableError(f"unknown type {kind!r}")


def _object(schema: Mapping[str, Any], root: Mapping[str, Any], start: int, depth: int) -> dict[str, Any]:
    properties: Mapping[str, Any] = schema.get("properties") or {}
    required = list(schema.get("required") or ())
    made: dict[str, Any] = {}
    for index, name in enumerate(properties):
        if name in required:
            made[name] = _value(properties[name], root, start + index + 1, depth + 1)
    extra = schema.get("additionalProperties", True)
    for name in required:
        if name not in made:
            made[name] = _value(extra, root, start + len(made) + 1, depth + 1)
    least = _count(schema, "minProperties", MOST)
    for index, name in enumerate(properties):
        if len(made) >= least:
            break
        if name not in made:
            made[name] = _value(properties[name], root, start + index + 1, depth + 1)
    while len(made) < least:
        made[f"key{len(made)}"] = _value(extra, root, start + len(made) + 1, depth + 1)
    return made


def _array(schema: Mapping[str, Any], root: Mapping[str, Any], start: int, depth: int) -> list[Any]:
    prefix = list(schema.get("prefixItems") or ())
    items = schema.get("items", True)
    if isinstance(items, list):  # before draft 2020-12
        prefix, items = items, schema.get("additionalItems", True)
    least = max(_count(schema, "minItems", MOST), len(prefix) if "minItems" in schema or prefix else 0)
    if "contains" in schema and least <= len(prefix):
        least = len(prefix) + 1
        items = schema["contains"]
    made: list[Any] = []
    for index in range(least):
        each = prefix[index] if index < len(prefix) else items
        value = _value(each, root, start + index + 1, depth + 1)
        attempt = 0
        while schema.get("uniqueItems") and value in made and attempt < 64:
            attempt += 1
            value = _other(value, attempt) if attempt > 32 else _value(each, root, start + 101 * attempt, depth + 1)
        if schema.get("uniqueItems") and value in made:
            raise UnsatisfiableError("not enough different items")
        made.append(value)
    return made


def _count(schema: Mapping[str, Any], name: str, most: int) -> int:
    count = int(schema.get(name) or 0)
    if count > most:
        raise UnsatisfiableError(f"{name} is larger than {most}")
    return count


def _other(value: Any, attempt: int) -> Any:
    if isinstance(value, str):
        return f"{value}{attempt}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value + attempt
    return value


def _string(schema: Mapping[str, Any], start: int) -> str:
    least = _count(schema, "minLength", LONGEST)
    most = schema.get("maxLength")
    if "pattern" in schema:
        text = example_match(str(schema["pattern"]))
        if text is None:
            raise UnsatisfiableError(f"no text found for the pattern {schema['pattern']!r}")
        return text
    if schema.get("format") in FORMATS:
        return FORMATS[schema["format"]]
    text = sentence(start, 2)
    while len(text) < least:
        text += " " + sentence(start + len(text), 2)
    return text if most is None else text[: max(int(most), 0)]


def _number(schema: Mapping[str, Any], whole: bool, start: int) -> int | float:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if above is True:  # draft 4
        above, low = low, None
    if below is True:
        below, high = high, None
    step = schema.get("multipleOf") or (1 if whole else None)
    if step is None:
        return _real(low, high, above, below)
    floor = max((bound for bound in (low, above) if bound not in (None, False)), default=None)
    if floor is None:
        ceiling = min((bound for bound in (high, below) if bound not in (None, False)), default=None)
        if ceiling is None:
            count = 1 + mix_bits(start) % 9
        else:
            count = math.floor(ceiling / step)
            count -= 1 if below is not None and count * step >= below else 0
    else:
        count = math.ceil(floor / step)
        count += 1 if above is not None and count * step <= above else 0
    value = count * step
    if (high is not None and value > high) or (below is not None and value >= below):
        raise UnsatisfiableError("no number between the bounds")
    return int(value) if whole else value


def _real(low: Any, high: Any, above: Any, below: Any) -> float:
    floor = max((float(bound) for bound in (low, above) if bound is not None), default=None)
    ceiling = min((float(bound) for bound in (high, below) if bound is not None), default=None)
    if floor is None and ceiling is None:
        return 1.5
    if floor is None:
        assert ceiling is not None  # noqa: S101  (for the type checker: one of the two is there)
        return ceiling - 0.5
    if ceiling is None:
        return floor + 0.5
    if floor > ceiling:
        raise UnsatisfiableError("no number between the bounds")
    return (floor + ceiling) / 2


def _resolve(reference: str, root: Mapping[str, Any]) -> Any:
    node: Any = root
    for part in reference.removeprefix("#").split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(node, Mapping) or name not in node:
            raise UnsatisfiableError(f"unresolved {reference}")
        node = node[name]
    return node


def _merged(schema: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    """Return `allOf` and its sibling keywords as one schema."""
    merged: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
    for part in schema["allOf"]:
        each = part
        while isinstance(each, Mapping) and "$ref" in each:
            each = {**_resolve(str(each["$ref"]), root), **{k: v for k, v in each.items() if k != "$ref"}}
        if not isinstance(each, Mapping):
            continue
        if "allOf" in each:
            each = _merged(each, root)
        for key, value in each.items():
            if key == "properties":
                merged["properties"] = {**merged.get("properties", {}), **value}
            elif key == "required":
                merged["required"] = [*merged.get("required", []), *value]
            else:
                merged[key] = value
    return merged
