"""charts/quarterdeck-models as Helm renders it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.helm import render, template

from quarterdeck.kube.compile.compiler import compile_objects
from quarterdeck.kube.resources.registry import RESOURCES

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "quarterdeck-models"
SIM = CHART / "ci" / "sim-values.yaml"
KINDS = {each.kind: each for each in RESOURCES}
SAMPLES = ROOT / "k8s" / "samples"
MAPS = {"Model": "models", "ModelAdapter": "adapters", "ModelRoute": "routes", "Team": "teams", "Prompt": "prompts"}


def test_each_entry_becomes_an_object_of_its_kind() -> None:
    objects = render(SIM, chart=CHART)
    assert {(each["kind"], each["metadata"]["name"]) for each in objects} == {
        ("Model", "fast"),
        ("Model", "large"),
        ("ModelAdapter", "french"),
        ("ModelRoute", "chat"),
        ("Team", "search"),
        ("Prompt", "greeting"),
    }
    for each in objects:
        KINDS[each["kind"]].parse(each)
    result = compile_objects({}, objects, {})
    assert all(each.is_accepted and each.is_resolved for each in result.verdicts.values())
    team = next(each for each in objects if each["kind"] == "Team")
    assert team["spec"]["limits"]["tokensPerMinute"] == 12_000_000  # not 1.2e+07


def test_all_samples_can_be_values() -> None:
    values: dict[str, Any] = {}
    wanted = {}
    for file in SAMPLES.glob("*.yaml"):
        for each in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            values.setdefault(MAPS[each["kind"]], {})[each["metadata"]["name"]] = each["spec"]
            wanted[each["kind"], each["metadata"]["name"]] = each["spec"]
    objects = render(chart=CHART, values=values)
    assert {(each["kind"], each["metadata"]["name"]): each["spec"] for each in objects} == wanted


def test_no_entries_make_no_objects() -> None:
    assert render(chart=CHART) == []


def test_an_entry_that_is_null_or_not_enabled_is_left_out() -> None:
    values = {"models": {"fast": None, "large": {"enabled": False}}}
    names = {each["metadata"]["name"] for each in render(SIM, chart=CHART, values=values) if each["kind"] == "Model"}
    assert names == set()


def test_labels_and_annotations_are_on_every_object() -> None:
    objects = render(SIM, chart=CHART, values={"labels": {"team": "ml"}, "annotations": {"note": "x"}})
    assert {each["metadata"]["labels"]["team"] for each in objects} == {"ml"}
    assert {each["metadata"]["annotations"]["note"] for each in objects} == {"x"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": {}}, "model"),
        ({"models": {"a": {"nonsense": 1}}}, "nonsense"),
        ({"models": {"a": {"scaling": {"min": -1}}}}, "scaling"),
        ({"models": {"a": {"scaling": {"max": "many"}}}}, "scaling"),
        ({"routes": {"a": {"targets": [{"model": "b", "weigth": 1}]}}}, "weigth"),
        ({"teams": {"a": {"budget": {"period": "day"}}}}, "amount"),
    ],
)
def test_the_schema_refuses(values: dict[str, Any], message: str) -> None:
    finished = template(chart=CHART, values=values)
    assert finished.returncode != 0
    assert message in finished.stderr


def test_the_schema_has_every_field_of_the_resources() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    for kind, resource in KINDS.items():
        spec = resource.model_fields["spec"].annotation
        aliases = {field.alias or name for name, field in spec.model_fields.items()}  # type: ignore[union-attr]
        assert schema["definitions"][kind]["properties"].keys() == aliases | {"enabled"}
