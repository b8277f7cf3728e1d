"""Results as text for a terminal."""

from quarterdeck.load.analysis.budgets import Verdict
from quarterdeck.load.report import terminal


def test_a_budget_that_was_checked_of_no_process_is_one_line() -> None:
    def of(process: str, outcome: str = "not judged", why: str = "only 0.0 of 10 min") -> Verdict:
        text = f"the growth of {process} was not checked: {why}" if outcome == "not judged" else "it grew"
        return Verdict(f"rss[{process}]", outcome, 5.0, None, text)  # type: ignore[arg-type]

    kept = Verdict("goodput", "kept", 0.5, 0.6, "60 % met the objectives")
    verdicts = [kept, of("gateway"), of("worker"), of("load", why="too few readings"), of("redis", "broken")]
    assert terminal.verdict_lines(verdicts).splitlines() == [
        "not judged  rss: 2 processes were not checked: only 0.0 of 10 min",
        "not judged  rss[load]: the growth of load was not checked: too few readings",
        "kept        goodput: 60 % met the objectives",
        "broken      rss[redis]: it grew",
    ]
