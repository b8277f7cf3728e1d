"""The files that a user copies can be read."""

from pathlib import Path

from quarterdeck.settings.config import load
from quarterdeck.settings.packaged import PACKAGED_CONFIG

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_is_a_valid_config() -> None:
    assert load(ROOT / "quarterdeck.example.yaml").models[0].aliases == ("gpt-4o-mini",)


def test_the_packaged_config_needs_nothing_but_wheels() -> None:
    engines = [model.engine for model in load(PACKAGED_CONFIG).models]
    assert [engine.task for engine in engines if engine and engine.is_packaged] == ["generate", "embed"]
