"""A split draws by weight; a user or session stays with its version, also while a canary grows."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.inference.prompts.split import LabelTargets
from quarterdeck.settings.prompts import LabelSpec


def targets(canary: float, prompt: str = "prompt_1", label: str = "production") -> LabelTargets:
    split = [{"version": 1, "weight": 100 - canary}, {"version": 2, "weight": canary}]
    return LabelTargets(prompt, label, LabelSpec.model_validate({"split": split}))


def test_one_version_is_always_drawn() -> None:
    single = LabelTargets("p", "l", LabelSpec(version=7))
    assert (single.pick("u"), single.pick(None), single.is_split) == (7, 7, False)


@given(st.text() | st.none())
def test_a_version_without_weight_is_never_drawn(user: str | None) -> None:
    assert targets(0).pick(user) == targets(0).pick(user, lambda: 1.0) == 1
    assert targets(100).pick(user) == targets(100).pick(user, lambda: 0.0) == 2


@given(st.text(), st.floats(0.01, 99), st.floats(0.01, 99))
def test_a_user_of_a_canary_stays_with_it_while_it_grows(user: str, first: float, second: float) -> None:
    small, large = sorted((first, second))
    assert targets(small).pick(user) == targets(small).pick(user)
    if targets(small).pick(user) == 2:
        assert targets(large).pick(user) == 2


@pytest.mark.parametrize("canary", [10, 50])
def test_shares_are_those_of_the_weights(canary: int) -> None:
    counts = Counter(targets(canary).pick(f"user-{n}") for n in range(20_000))
    assert counts[2] / 20_000 == pytest.approx(canary / 100, abs=0.01)  # 4 standard deviations and more


def test_prompts_draw_independently() -> None:
    both = sum(
        targets(10, prompt="a").pick(f"u{n}") == 2 and targets(10, prompt="b").pick(f"u{n}") == 2 for n in range(20_000)
    )
    assert both / 20_000 == pytest.approx(0.01, abs=0.004)


@given(st.lists(st.floats(0.001, 1000), min_size=2, max_size=10), st.floats(0, 1, exclude_max=True))
def test_without_a_user_the_place_is_random(weights: list[float], place: float) -> None:
    spec: dict[str, Any] = {"split": [{"version": n, "weight": weight} for n, weight in enumerate(weights, 1)]}
    picked = LabelTargets("p", "l", LabelSpec.model_validate(spec)).pick(None, lambda: place)
    total = sum(weights)
    below = sum(weights[: picked - 1]) / total
    assert below - 1e-9 <= place <= below + weights[picked - 1] / total + 1e-9
