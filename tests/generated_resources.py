"""Custom resources generated from their schemas: valid and absurd ones, the same for the same seed.

They pass the schema without its CEL rules, so that an API server refuses some of them; what it takes must neither
crash the parser nor the compiler.
"""

from random import Random
from typing import Any

from quarterdeck.kube.names import API_VERSION
from quarterdeck.kube.resources.object import Resource
from quarterdeck.kube.resources.registry import RESOURCES
from quarterdeck.kube.schema import PRESERVE, schema

_NAMES = ("a", "b", "llama", "org/model", "gpt-4o", "x:y", "A.b_c")
_TEXTS = (
    "a",
    "b",
    "llama",
    "prompt:x",
    "name with spaces",
    "ünï🙂",
    "{{ x }}",
    "a\nb",
    "'\"\\",
    "null",
    "0",
    "a" * 300,
)
_SAMPLES: dict[str, tuple[str, ...]] = {
    r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$": (*_NAMES, "prompt:x", "prompt:", "a" * 128),
    r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$": ("cpu", "l4", "secret", "a.b", "0"),
    r"^[-._a-zA-Z0-9]+$": ("key", "..", "a_b.c-d"),
    r"^[0-9]+([.][0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$": ("1", "500m", "1.5Gi", "0", "20Gi"),
    r"^[A-Za-z0-9][A-Za-z0-9._/-]*$": ("main", "v1.0", "refs/pr/1"),
    r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$": ("vllm/vllm-openai:v1", "r.io/a@sha256:00"),
    r"^[A-Za-z0-9_][A-Za-z0-9._-]*$": ("v1", "0.29.0"),
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$": ("red", "blue", "Team.1"),
    r"^[0-9]{1,9}([.][0-9]{1,6})?$": ("0", "0.05", "100", "999999999.999999", "0.000000"),
    r"^(metadata\.session_id|user|header:[a-z0-9-]+)$": ("metadata.session_id", "user", "header:x-session", "header:-"),
    r"^/[\x21-\x7e]*$": ("/", "/health?x=1"),
    r"^[A-Za-z][A-Za-z0-9_]*$": ("topic", "x1"),
    r"^[a-z][a-z0-9._-]{0,35}$": ("production", "a"),
    r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$": ("support/answer", "p", "prompt_" + "0" * 24),
}
"""Texts for each pattern of the schemas. A new pattern needs some."""
_BY_FIELD: dict[str, tuple[Any, ...]] = {
    "uri": (
        "org/name",
        "hf://org/name",
        "pvc://claim/x",
        "file:///m",
        "packaged:m",
        "s3://b/k",
        "a/../b",
        "pvc://../x",
    ),
    "url": (
        "http://x",
        "https://h:443/v1",
        "http://h/p?api-version=1",
        "ftp://x",
        "http://",
        "http://u@h",
        "http://[::1]",
    ),
    "image": ("vllm/vllm-openai:v1",),
    "accelerator": ("cpu", "l4"),
    "model": _NAMES,
    "kind": ("vllm", "openai", "ollama"),
}
_KEYS = ("VLLM_X", "x-team", "topic", "1bad", "a b", "")
_JSON: tuple[Any, ...] = (None, True, 0, -1.5, 10**20, "", "text", [], [1, [2]], {}, {"a": {"b": [None]}}, {"": 0})


def generate(rng: Random, *, name: str | None = None, resource: type[Resource] | None = None) -> dict[str, Any]:
    """An object as the API returns it."""
    kind = resource or rng.choice(RESOURCES)
    shape = _SHAPES[kind.kind]
    name = name or rng.choice(("a", "b", "llama", "model-1", "x" * rng.choice((40, 41, 63)), "1st", "a.b"))
    return {
        "apiVersion": API_VERSION,
        "kind": kind.kind,
        "metadata": {
            "name": name,
            "uid": f"{kind.kind}-{name}-{rng.randrange(1000)}",
            "generation": rng.randrange(1, 9),
            "creationTimestamp": f"2026-01-01T00:00:{rng.randrange(60):02}Z",
        },
        "spec": _value(shape["properties"]["spec"], rng, "spec", rng.choice((0.05, 0.15, 0.4))),
    }


def _value(shape: dict[str, Any], rng: Random, field: str, often: float) -> Any:
    """`often`: how likely an optional member is there."""
    if "enum" in shape:
        return rng.choice(shape["enum"])
    if shape.get("x-kubernetes-int-or-string"):
        return rng.choice((rng.randrange(10), rng.choice(_SAMPLES.get(shape.get("pattern", ""), ("1",)))))
    match shape.get("type"):
        case "object" if "properties" in shape:
            required = shape.get("required", ())
            return {
                name: _value(each, rng, name, often)
                for name, each in shape["properties"].items()
                if name in required or rng.random() < (0.9 if name in ("source", "text", "role") else often)
            }
        case "object" if "additionalProperties" in shape:
            keys = rng.sample(_KEYS, rng.randrange(3))
            return {key: _value(shape["additionalProperties"], rng, field, often) for key in keys}
        case "object":
            return rng.choice(({}, {"a": rng.choice(_JSON)}, {"max_num_seqs": rng.choice(_JSON)}, {"temperature": 1}))
        case "array":
            low = shape.get("minItems", 0)
            high = min(shape.get("maxItems", 3), max(low, 3))
            return [_value(shape["items"], rng, field, often) for _ in range(rng.randint(low, high))]
        case "string":
            return _text(shape, rng, field)
        case "integer":
            return rng.choice(_numbers(shape, 10**9))
        case "number":
            return rng.choice(
                (*_numbers(shape, 10**6), *(each / 2 for each in _numbers(shape, 10**6) if each % 2 == 0))
            )
        case "boolean":
            return rng.random() < 0.5
    assert shape.get(PRESERVE), shape
    return rng.choice(_JSON)


def _numbers(shape: dict[str, Any], most: int) -> list[int]:
    """Numbers within the bounds, the bounds among them."""
    low = int(shape.get("minimum", 0)) + bool(shape.get("exclusiveMinimum"))
    high = int(min(shape.get("maximum", most), most))
    return sorted({low, min(low + 1, high), min(16, high) if low <= 16 else low, high})


def _text(shape: dict[str, Any], rng: Random, field: str) -> str:
    samples = _BY_FIELD.get(field) or (_SAMPLES[shape["pattern"]] if "pattern" in shape else _TEXTS)
    low, high = shape.get("minLength", 0), shape.get("maxLength", 1000)
    return rng.choice([each for each in samples if low <= len(each) <= high])


_SHAPES = {each.kind: schema(each) for each in RESOURCES}
