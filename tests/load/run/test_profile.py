"""Profiles: shipped ones are valid, and errors are reported with their location."""

from pathlib import Path
from typing import Any

import pytest

from quarterdeck.load.run import profile
from quarterdeck.load.run.profile import ProfileError

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("file", sorted((ROOT / "loadtests" / "profiles").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_profile_can_be_used(file: Path) -> None:
    loaded = profile.load(file)
    assert loaded.name == file.stem
    assert loaded.trace is None or loaded.trace.file.is_file()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"scenarios": {}}, "at least one is required"),
        ({"scenarios": {"steam": {}}}, "scenarios.steam: Extra inputs are not permitted"),
        ({"scenarios": {"chat": {"weight": 0}}}, "scenarios.chat.weight: Input should be greater than 0"),
        ({"scenarios": {"chat": {}}, "duration": "2 minutes"}, "duration: '2 minutes' is not a duration"),
        ({"scenarios": {"chat": {}}, "arrivals": "trace"}, "`arrivals: trace` and a `trace:` block require each other"),
        ({"scenarios": {"chat": {}}, "duration": 10, "warmup": 10}, "warmup must be shorter"),
        (
            {"scenarios": {"chat": {}}, "arrivals": "users", "shape": {"kind": "saturation"}},
            "requires `arrivals: constant`",
        ),
    ],
)
def test_what_cant_be_used_is_refused_in_one_line(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(ProfileError) as refused:
        profile.make(values, "x.yaml")
    assert expected in str(refused.value)
    assert str(refused.value).startswith("x.yaml: ")
    assert "\n" not in str(refused.value)
