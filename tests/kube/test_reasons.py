"""The table of reasons."""

import pytest

from quarterdeck.kube.conditions import Reason
from quarterdeck.kube.reasons import EXPLANATIONS


def test_every_reason_has_an_explanation() -> None:
    assert set(EXPLANATIONS) == set(Reason)


@pytest.mark.parametrize("reason", Reason)
def test_texts_are_whole_sentences_and_an_error_has_a_remedy(reason: Reason) -> None:
    explanation = EXPLANATIONS[reason]
    assert explanation.meaning.endswith(".")
    assert explanation.is_progress or explanation.remedy
    assert not explanation.remedy or explanation.remedy.endswith(".")
