"""Injected faults in the report: marks in plots and a table."""

from pathlib import Path

import pytest
from tests.load.folders import START, request, steady, write_run

from quarterdeck.load.analysis import results
from quarterdeck.load.analysis.results import ResultsError
from quarterdeck.load.report import run_report


def test_what_was_done_on_purpose_is_marked_and_told(tmp_path: Path) -> None:
    rows = [*steady(60), request(24.5, outcome="503 engine_unavailable", status=503)]
    folder = write_run(tmp_path, rows, processes=[(at, "gateway", 1, 2**26, at / 10, 3) for at in range(60)])
    before = run_report.render(results.read(folder)).count('class="mark"')
    lines = ["time,ended,name", f"{START + 24},{START + 26},engine killed", f"{START + 30},{START + 31},<b>"]
    (folder / "events.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    html = run_report.render(results.read(folder))
    assert html.count('class="mark"') == before + 6  # two each in latency, requests per second and memory
    assert "engine killed" in html and "<b>" not in html
    assert '<td data-head="fault">engine killed</td><td class="n" data-head="duration">2.0 s</td>' in html
    many = [f"{START + at},{START + at + 1},engine killed" for at in range(2, 50, 4)]
    (folder / "events.csv").write_text("\n".join(["time,ended,name", *many]) + "\n", encoding="utf-8")
    html = run_report.render(results.read(folder))
    assert html.count("engine killed") == len(many)  # only in the table: the names would overlap in plots


def test_an_event_without_its_time_is_refused_with_its_place(tmp_path: Path) -> None:
    folder = write_run(tmp_path, steady(1))
    (folder / "events.csv").write_text("time,ended,name\nnow,2,engine killed\n", encoding="utf-8")
    with pytest.raises(ResultsError, match=r"events\.csv:2"):
        results.read(folder)
