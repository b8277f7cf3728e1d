"""Profiles: those that are shipped can be used, and what can't be used is refused with its place."""

from pathlib import Path
from typing import Any

import pytest

from quarterdeck.load import arguments
from quarterdeck.load.run import profile
from quarterdeck.load.run.profile import ProfileError

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("file", sorted((ROOT / "loadtests" / "profiles").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_profile_can_be_used(file: Path) -> None:
    loaded = profile.load(file)
    assert loaded.name == file.stem
    assert loaded.trace is None or loaded.trace.file.is_file()


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"scenarios": {}}, "at least one is needed"),
        ({"scenarios": {"steam": {}}}, "scenarios.steam: Extra inputs are not permitted"),
        ({"scenarios": {"chat": {"weight": 0}}}, "scenarios.chat.weight: Input should be greater than 0"),
        ({"scenarios": {"chat": {}}, "duration": "2 minutes"}, "duration: '2 minutes' is no duration"),
        ({"scenarios": {"chat": {}}, "arrivals": "trace"}, "`arrivals: trace` and a `trace:` block belong together"),
        ({"scenarios": {"chat": {}}, "duration": 10, "warmup": 10}, "warmup must be shorter"),
        (
            {"scenarios": {"chat": {}}, "arrivals": "users", "shape": {"kind": "saturation"}},
            "needs `arrivals: constant`",
        ),
    ],
)
def test_what_cant_be_used_is_refused_in_one_line(told: dict[str, Any], said: str) -> None:
    with pytest.raises(ProfileError) as refused:
        profile.make(told, "x.yaml")
    assert said in str(refused.value)
    assert str(refused.value).startswith("x.yaml: ")
    assert "\n" not in str(refused.value)


def parsed(*words: str) -> profile.Profile:
    return arguments.profile_of(arguments.parser().parse_args(["run", *words]))


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
    assert {name: (asking.weight, asking.max_tokens) for name, asking in found.scenarios.chosen.items()} == {
        "chat": (2, 8),
        "stream": (1, 8),
    }
    assert found.slo.ttft_ms == 200


def test_a_profile_that_is_not_there_is_named_with_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(ProfileError, match=r"no profile 'nope': .*default.*spike"):
        parsed("nope")
