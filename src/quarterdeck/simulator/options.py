"""Reads the configuration from a command line and a YAML file with the same names; the command line wins."""

import argparse
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from quarterdeck.simulator.config import Duration, SimulatorConfig, validate

IGNORED = (
    "data-parallel-rank",
    "data-parallel-size",
    "dataset-path",
    "dtype",
    "ec-transfer-config",
    "enable-lora",
    "enable-prefix-caching",
    "enforce-eager",
    "event-batch-size",
    "force-dummy-tokenizer",
    "gpu-memory-utilization",
    "hash-seed",
    "log-http",
    "max-cpu-loras",
    "mm-processor-kwargs",
    "strict",
    "tensor-parallel-size",
    "tool-call-parser",
    "v",
    "zmq-endpoint",
)
"""Options of vLLM and llm-d-inference-sim that are accepted and ignored, so that a manifest works unchanged."""

NESTED = ("latencies", "kvcache")
"""Keys under which llm-d-inference-sim's YAML file may nest its options."""

DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str | float) -> float:
    """Parse a Go duration ("1m30s", "80ms") or a number of milliseconds. Raises ValueError."""
    if isinstance(text, int | float):
        return text / 1000
    text = text.strip()
    try:
        return float(text) / 1000
    except ValueError:
        pass
    parts = DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"'{text}' is not a duration (80ms, 1.5s, 2m)")
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def durations() -> frozenset[str]:
    """Return the names of the fields that are durations."""
    hints = typing.get_type_hints(SimulatorConfig, include_extras=True)
    return frozenset(name for name, hint in hints.items() if Duration in getattr(hint, "__metadata__", ()))


def list_options() -> frozenset[str]:
    """Return the names of the options that are lists."""
    hints = typing.get_type_hints(SimulatorConfig)
    return frozenset(
        field.encode_name
        for field in msgspec.structs.fields(SimulatorConfig)
        if typing.get_origin(hints[field.name]) is list
    )


def from_mapping(values: Mapping[str, Any], base: SimulatorConfig | None = None) -> SimulatorConfig:
    """Build a configuration from options by name (kebab-case or snake_case), over `base`. Raises ValueError."""
    known = {field.encode_name: field.name for field in msgspec.structs.fields(SimulatorConfig)}
    merged: dict[str, Any] = {}
    if base is not None:
        merged = {name: getattr(base, attribute) for name, attribute in known.items()}
    times = durations()
    for given, value in values.items():
        name = given.replace("_", "-")
        if name not in known:
            raise ValueError(f"unknown option '{given}'")
        merged[name] = seconds(value) if known[name] in times else value
    try:
        config = msgspec.convert(merged, SimulatorConfig, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
    validate(config)
    return config


def read_file(path: Path) -> dict[str, Any]:
    """Read a YAML file's options. `latencies:` and `kvcache:` are flattened; ignored options are dropped."""
    document = msgspec.yaml.decode(path.read_bytes())
    if not isinstance(document, dict):
        raise ValueError(f"{path}: not a mapping of options")
    flat: dict[str, Any] = {}
    for name, value in document.items():
        if name in NESTED and isinstance(value, dict):
            flat.update(value)
        else:
            flat[name] = value
    return {name: value for name, value in flat.items() if name.replace("_", "-") not in IGNORED}


def make_parser() -> argparse.ArgumentParser:
    """Build a parser with an option for each field of SimulatorConfig; unset ones are absent from its result."""
    parser = argparse.ArgumentParser(
        prog="python -m quarterdeck.simulator",
        description="A simulated engine: the OpenAI protocol, deterministic text, set latencies and faults on demand.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--config", type=Path, help="a YAML file with the same options")
    hints = typing.get_type_hints(SimulatorConfig, include_extras=True)
    for field in msgspec.structs.fields(SimulatorConfig):
        hint = hints[field.name]
        description = next(
            meta.description for meta in reversed(hint.__metadata__) if getattr(meta, "description", None)
        )
        if field.name == "model":
            parser.add_argument("--model", action="append", metavar="TEXT", help=description)
            continue
        plain = typing.get_origin(hint.__origin__) or hint.__origin__
        flag = f"--{field.encode_name}"
        description = description.replace("%", "%%")
        if plain is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=description)
        elif plain is list:
            parser.add_argument(flag, nargs="*", help=description)
        elif plain is dict:
            parser.add_argument(flag, type=_json, help=description)
        else:
            parser.add_argument(flag, metavar=_metavar(hint.__origin__), help=description)
    for name in IGNORED:
        parser.add_argument(f"--{name}", f"--no-{name}", nargs="?", dest="ignored", help=argparse.SUPPRESS)
    return parser


def parse(arguments: Sequence[str]) -> SimulatorConfig:
    """Parse a command line. Exits with the usage text if it is invalid."""
    parser = make_parser()
    given = vars(parser.parse_args(arguments))
    given.pop("ignored", None)
    path = given.pop("config", None)
    given |= first_model(given)
    try:
        return from_mapping({**(read_file(path) if path else {}), **given})
    except (ValueError, OSError) as error:
        parser.error(str(error))


def first_model(given: Mapping[str, Any]) -> dict[str, Any]:
    """Choose the main model: the first --model (the rest are more models), else the first embedding model."""
    models, embedding = list(given.get("model") or ()), list(given.get("embedding_model") or ())
    if models:
        return {"model": models[0], "more_models": [*models[1:], *given.get("more_models", ())]}
    if embedding:
        return {"model": embedding[0], "embedding_model": embedding[1:], "task": "embed"}
    return {}


def _json(text: str) -> Any:
    return msgspec.json.decode(text)


def _metavar(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return "{" + ",".join(typing.get_args(hint)) + "}"
    if isinstance(hint, types.GenericAlias | type):
        return {"int": "N", "float": "X"}.get(getattr(hint, "__name__", ""), "TEXT")
    return "TEXT"
