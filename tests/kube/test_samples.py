"""k8s/samples: valid by the classes, and compiled together."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from quarterdeck.kube.compile.compiler import compile_objects
from quarterdeck.kube.resources.registry import RESOURCES

FOLDER = Path(__file__).resolve().parents[2] / "k8s" / "samples"
FILES = sorted(FOLDER.glob("*.yaml"))
KINDS = {each.kind: each for each in RESOURCES}


def objects_in(file: Path) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(file.read_text(encoding="utf-8")) if each]


@pytest.mark.parametrize("file", FILES, ids=[file.name for file in FILES])
def test_a_sample_is_valid(file: Path) -> None:
    for each in objects_in(file):
        KINDS[each["kind"]].parse(each)


def test_all_samples_are_accepted_together() -> None:
    result = compile_objects({}, [each for file in FILES for each in objects_in(file)], {})
    assert result.problem is None
    assert [(key, each) for key, each in result.verdicts.items() if not (each.is_accepted and each.is_resolved)] == []
    assert [key.secret for key in result.endpoint_keys] == ["hosted-api"]


def test_every_kind_and_every_choice_worth_showing_has_a_sample() -> None:
    objects = [each for file in FILES for each in objects_in(file)]
    assert {each["kind"] for each in objects} == set(KINDS)
    specs = [each["spec"] for each in objects if each["kind"] == "Model"]
    assert {spec.get("engine", {}).get("type", "vllm") for spec in specs} == {"sim", "vllm"}
    assert any(spec.get("resources", {}).get("tensorParallel", 1) > 1 for spec in specs)
    assert any(spec.get("scaling", {}).get("min") == 0 for spec in specs)
    assert any("canary" in spec.get("rollout", {}) for spec in specs)
    assert any(spec.get("quantization", {}).get("method") == "bitsandbytes" for spec in specs)
    assert any(spec.get("endpoints", [{}])[0].get("kind") == "ollama" for spec in specs)


def test_the_readme_lists_every_sample() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [file.name for file in FILES if f"]({file.name})" not in text] == []
