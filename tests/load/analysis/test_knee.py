"""The ramp stops by itself and reports the last rate that the server kept up with."""

from quarterdeck.load.analysis.knee import KneeFinder, RampStep


def find(*steps: RampStep) -> KneeFinder:
    finder = KneeFinder()
    for step in steps:
        if finder.add(step):
            break
    return finder


def test_while_answers_keep_up_it_goes_on() -> None:
    finder = find(RampStep(10, 10, 50), RampStep(20, 19.9, 60), RampStep(40, 39, 70))
    assert finder.reason is None
    assert finder.knee == RampStep(40, 39, 70)


def test_it_stops_where_goodput_no_longer_grows() -> None:
    finder = find(RampStep(10, 10, 50), RampStep(20, 20, 60), RampStep(40, 20.1, 90), RampStep(80, 80, 50))
    assert finder.reason == "goodput no longer grows at 40/s (20/s, best 20/s)"
    assert finder.verdict() == (
        "Knee: 20.0 requests/s, below 40.0 (p99 of the first answer 60 ms);"
        " goodput no longer grows at 40/s (20/s, best 20/s)."
    )


def test_it_stops_where_the_tail_explodes_though_goodput_still_grows() -> None:
    finder = find(RampStep(10, 10, 50), RampStep(20, 20, 60), RampStep(40, 30, 400))
    assert finder.reason == "p99 at 40/s is 8.0 times that of the first step"
    assert finder.knee == RampStep(20, 20, 60)


def test_a_step_that_is_missed_a_little_is_not_the_end_while_goodput_grows() -> None:
    finder = find(RampStep(10, 10, 50), RampStep(20, 18, 60), RampStep(40, 39, 70))
    assert finder.reason is None
    assert finder.knee == RampStep(40, 39, 70)


def test_no_answer_at_all_is_the_end() -> None:
    finder = find(RampStep(10, 0, None))
    assert finder.verdict() == "No knee: the server did not keep up with the lowest rate; no answer at 10/s."
