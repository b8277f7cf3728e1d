"""Example files are valid."""

import re
from pathlib import Path

from quarterdeck.settings.loading import load
from quarterdeck.settings.packaged import PACKAGED_CONFIG

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_is_a_valid_config() -> None:
    config = load(ROOT / "quarterdeck.example.yaml")
    assert config.models[0].aliases == ("gpt-4o-mini",)
    assert config.routes[0].name in config.cache.policies
    assert set(config.queue.weights) <= set(config.teams)
    assert config.teams["research"].budget is not None


def test_the_example_is_valid_with_what_is_commented_out(tmp_path: Path) -> None:
    """In the file prose begins with a capital letter, at the margin or not."""
    text = (ROOT / "quarterdeck.example.yaml").read_text()
    (tmp_path / "whole.yaml").write_text(re.sub(r"^( +)# (?=[- ]|[a-z_]+:)", r"\1", text, flags=re.MULTILINE))
    config = load(tmp_path / "whole.yaml")
    assert config.models[-1].name == "llama3.2"
    assert (len(config.routes[0].targets), len(config.routes[0].fallbacks)) == (2, 1)
    assert config.routes[0].mirror is not None


def test_the_packaged_config_needs_nothing_but_wheels() -> None:
    engines = [model.engine for model in load(PACKAGED_CONFIG).models]
    assert [engine.task for engine in engines if engine and engine.is_packaged] == ["generate", "embed"]
