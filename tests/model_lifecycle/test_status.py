"""Words for a model's state."""

import pytest

from quarterdeck.model_lifecycle.status import ModelStatus, about


@pytest.mark.parametrize(
    ("seconds", "words"), [(3, "a few seconds"), (41, "about 40 s"), (98, "about 100 s"), (130, "about 2 min")]
)
def test_an_estimate_is_coarser_the_longer_it_is(seconds: float, words: str) -> None:
    assert about(seconds) == words


def test_what_is_not_known_is_left_out() -> None:
    assert ModelStatus(name="a", state="ready").as_dict() == {"name": "a", "state": "ready"}
