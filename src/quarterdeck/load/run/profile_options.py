"""The profile of a run: a file's values with the command line's overrides. Pure apart from reading the file."""

import argparse
from pathlib import Path
from typing import Any

from quarterdeck.load.run import profile as profiles
from quarterdeck.load.run.profile import Profile, ProfileError

DEFAULT_PROFILE = "default"
REAL_PROFILE = "real"
"""The profile for a real engine on this machine if none is named: the default one would only fill its queue."""
DEFAULT_SCENARIOS = {"stream": {"max_tokens": 64}}
"""Used if a rate is given without a profile: streams, the most common subject of measurement."""
PROFILES = Path("loadtests/profiles")


def profile_of(options: argparse.Namespace, default: str = DEFAULT_PROFILE) -> Profile:
    """The profile's file, overridden by the command line. Raises ProfileError."""
    name = options.profile_file or options.profile
    has_no_file = name is None and (options.rate or options.users or options.arrivals == "trace")
    values: dict[str, Any]
    if has_no_file:
        values = {"name": "command-line", "scenarios": DEFAULT_SCENARIOS}
    else:
        values = profiles.read(_file(name or default))
    return profiles.make(_overridden(values, options), name or "the command line")


def _file(name: str) -> Path:
    for file in (Path(name), PROFILES / f"{name}.yaml"):
        if file.is_file():
            return file
    known = ", ".join(sorted(file.stem for file in PROFILES.glob("*.yaml"))) or "none"
    raise ProfileError(f"profile {name!r} not found: neither a file nor one of {PROFILES} ({known})")


def _overridden(values: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    found = dict(values)
    for name in ("duration", "warmup", "seed", "arrivals"):
        if (value := getattr(options, name)) is not None:
            found[name] = value
    if options.trace:
        found["trace"] = {**(found.get("trace") or {}), "file": options.trace}
        found["arrivals"] = "trace"
    if options.rate:
        levels = [_number(text, "--rate") for text in options.rate.split(",")]
        each = found.get("duration", 60)
        found["shape"] = {"kind": "constant", "level": levels[0]}
        if len(levels) > 1:
            found["shape"] = {"kind": "steps", "levels": levels, "each": each}
        if found.get("arrivals") == "users":
            found["arrivals"] = "poisson"
    if options.users:
        found |= {"arrivals": "users", "shape": {"kind": "constant", "level": options.users}}
        found.pop("trace", None)
    if options.scenarios:
        pairs = (text.partition("=") for text in options.scenarios.split(","))
        found["scenarios"] = {name: {"weight": _number(weight or "1", "--scenarios")} for name, _, weight in pairs}
    for name in ("max_tokens", "input_tokens"):
        if (value := getattr(options, name)) is not None:
            scenarios = {key: dict(scenario or {}) for key, scenario in found.get("scenarios", {}).items()}
            found["scenarios"] = {key: {**scenario, name: value} for key, scenario in scenarios.items()}
    if options.slo:
        pairs = (text.partition("=") for text in options.slo.split(","))
        found["slo"] = {name: _number(value, "--slo") for name, _, value in pairs}
    return found


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ProfileError(f"{option}: {text!r} is not a number") from None
