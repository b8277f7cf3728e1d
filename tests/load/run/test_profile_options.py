"""The command line's overrides of a profile."""

from pathlib import Path

import pytest

from quarterdeck.load.__main__ import parser
from quarterdeck.load.run import profile_options
from quarterdeck.load.run.profile import Profile, ProfileError

ROOT = Path(__file__).resolve().parents[3]


def parsed(*words: str) -> Profile:
    return profile_options.profile_of(parser().parse_args(["run", *words]))


def test_a_rate_alone_is_a_profile_of_streams() -> None:
    found = parsed("--rate", "5", "--duration", "30s", "--seed", "7", "--slo", "ttft_ms=500")
    assert (found.shape.kind, found.shape.at(0), found.length, found.seed) == ("constant", 5, 30, 7)
    assert list(found.scenarios.chosen) == ["stream"]
    assert found.slo.ttft_ms == 500


def test_several_rates_are_steps_and_users_a_closed_loop() -> None:
    steps = parsed("--rate", "5,10", "--duration", "30s")
    assert (steps.shape.kind, steps.length, steps.shape.at(31)) == ("steps", 60, 10)
    closed = parsed("--users", "8")
    assert (closed.arrivals, closed.shape.at(0)) == ("users", 8)


def test_the_command_line_goes_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = parsed("default", "--scenarios", "chat=2,stream", "--max-tokens", "8")
    assert {name: (scenario.weight, scenario.max_tokens) for name, scenario in found.scenarios.chosen.items()} == {
        "chat": (2, 8),
        "stream": (1, 8),
    }
    assert found.slo.ttft_ms == 200


def test_a_profile_that_is_not_there_is_named_with_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(ProfileError, match=r"profile 'nope' not found: .*default.*spike"):
        parsed("nope")
