"""Progress lines, and the results of a ramp's steps."""

from quarterdeck.load.analysis.objectives import Slo
from quarterdeck.load.analysis.samples import Sample
from quarterdeck.load.run.progress import Progress


def asked(at: float, answer_ms: float, outcome: str = "ok") -> Sample:
    return Sample("chat", 100 + at, 100 + at, ended=100 + at + answer_ms / 1e3, outcome=outcome, output_tokens=4)


def test_a_step_is_what_was_wanted_in_its_time() -> None:
    progress = Progress(100.0, Slo(total_ms=50))
    for sample in (asked(0.1, 10), asked(1.9, 40), asked(1.9, 60), asked(1.9, 1, "cut"), asked(2.0, 10)):
        progress.add(sample)
    progress.add(asked(0.5, 900, "expected:hung_up"))
    step = progress.step(2.0, 0, 2)
    assert step.goodput == 1.5  # two answers within the objective, one expected rejection, in two seconds
    assert step.p99_ms is not None
    assert 59 < step.p99_ms <= 60
    assert progress.errors == {"cut": 1}
    assert progress.line(0, 2).startswith("    2 s  answered     2.5/s  good     1.5/s")
