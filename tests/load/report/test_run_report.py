"""The report: its sentences and numbers, read back out of the page."""

import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.load.folders import GAPS, START, request, rich, rich_rows, steady, write_run

from quarterdeck.load.analysis import budgets, results
from quarterdeck.load.analysis.results import ResultsError
from quarterdeck.load.report import run_report


class Reader(HTMLParser):
    """Tables by caption, ids, what is linked, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.ids: list[str] = []
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self._rows: list[list[str]] = []
        self._caption = ""
        self._open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        told = dict(attributes)
        self.ids += [told["id"] or ""] if "id" in told else []
        self.sources += [told[name] or "" for name in ("href", "src") if name in told]
        if tag not in ("meta", "path", "circle"):
            self._open.append(tag)
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "path", "circle"):
            assert self._open.pop() == tag, f"{tag} is closed out of turn"
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        self.words += data
        if self._open and self._open[-1] == "caption":
            self._caption += data
        elif self._open and self._open[-1] in ("td", "th"):
            self._rows[-1][-1] += data


def read(page: Path) -> Reader:
    return Reader(page.read_text(encoding="utf-8"))


def test_the_page_needs_nothing_from_anywhere(tmp_path: Path) -> None:
    file = run_report.write(rich(tmp_path))
    page = read(file)
    assert "script" not in page.tags and "link" not in page.tags and "img" not in page.tags
    assert not [source for source in page.sources if "://" in source]
    assert "url(" not in file.read_text(encoding="utf-8") and "@import" not in file.read_text(encoding="utf-8")


def test_every_id_is_its_own_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    page = read(run_report.write(rich(tmp_path)))
    assert len(page.ids) == len(set(page.ids))
    for source in page.sources:
        assert source.removeprefix("#") in page.ids if source.startswith("#") else (tmp_path / source).exists()
    assert {"run.json", "requests.csv", "itl.json", "processes.csv", "metrics.csv"} <= set(page.sources)


def test_every_plot_has_its_numbers_as_a_table_and_a_caption(tmp_path: Path) -> None:
    page = read(run_report.write(rich(tmp_path)))
    assert page.tags.count("figure") == page.tags.count("svg") == page.tags.count("figcaption") == 9
    assert page.tags.count("desc") == page.tags.count("details") == 9


def test_the_numbers_are_those_of_the_rows(tmp_path: Path) -> None:
    page = read(run_report.write(rich(tmp_path)))
    numbers = {row[0]: row[1] for row in page.tables["Figures"]}
    assert numbers["time to first token, p50"] == "40.0 ms"
    assert numbers["whole request, p99"] == "400 ms"
    assert numbers["requests"] == "595"
    assert numbers["errors"] == "0.168 %"
    assert numbers["answered"] == "9.88/s"
    assert numbers["goodput"] == "9.88/s"
    gaps = page.tables["Gaps between tokens: distribution"]
    assert [row[:2] for row in gaps] == [["", "count"], ["all", "100"], ["chat", "100"]]
    over = page.tables["Time to first token over the run"]
    assert over[1] == ["5 s", "40.0 ms", "40.0 ms", "100"]
    outcomes = page.tables["Outcomes, errors first"]
    assert outcomes[1] == ["timeout", "no response", "1", "0.168 %", "req_lost"]
    assert [row[0] for row in outcomes[2:]] == ["disconnected (expected: misbehaving client)", "answered"]
    (cached,) = page.tables["Answers from the gateway's cache, and prompt tokens from the engines' prefix caches"][1:]
    assert cached[:2] == ["repeat", "66.7 % (2 of 3)"]
    assert [row[0] for row in page.tables["Answers by rate"]] == ["rate", "10/s", "11/s", "12/s"]
    memory = page.tables["Memory of each process"]
    assert memory[1] == ["gateway", "1", "100 MiB", "159 MiB", "159 MiB", "–"]
    costs = page.tables["Cost of the traffic, as counted by the gateway"]
    assert costs[1][1] == "$ 0.59"


def test_budgets_stand_first_and_the_broken_one_in_the_headline(tmp_path: Path) -> None:
    rich(tmp_path)
    told = budgets.parse({"ttft_p99_ms": 30, "error_rate": 0.1})
    budgets.write(tmp_path, budgets.check(told, results.read(tmp_path)))
    page = read(run_report.write(tmp_path))
    assert "Failed. The time to first token at p99 was 40.0 ms; at most 30 ms is allowed." in page.words
    (name,) = [name for name in page.tables if name.startswith("Budgets")]
    assert [row[:2] for row in page.tables[name][1:]] == [["ttft_p99_ms", "broken"], ["error_rate", "kept"]]


def test_a_good_run_is_told_in_a_sentence(tmp_path: Path) -> None:
    write_run(tmp_path, steady(60))
    budgets.write(tmp_path, budgets.check(budgets.parse({"error_rate": 0, "cost_drift": 1}), results.read(tmp_path)))
    words = read(run_report.write(tmp_path)).words
    assert "Passed. 1 of 2 budgets kept, 1 not checked. All 600 requests succeeded." in words
    assert "Time to the first token: p50 50.0 ms, p99 50.0 ms." in words
    assert "600 requests to sim at http://127.0.0.1:8000/v1 in 60 s, 10 per second. Scenarios: chat 100 %." in words
    assert "constant arrivals; 10 per second; 60 s; chat (max_tokens 64)" in words
    assert "A processor, 2 cores, 24 GiB, Linux 6.1" in words


def test_a_client_that_was_the_bottleneck_is_told_at_the_top(tmp_path: Path) -> None:
    write_run(tmp_path, [request(i, ttft_ms=50, started=START + i + 0.02) for i in range(50)])
    words = read(run_report.write(tmp_path)).words
    assert words.count("The client was the bottleneck.") == 2
    assert "up to 40 % of the latencies above is its own lag" in words
    assert "The client was the bottleneck" not in read(run_report.write(rich(tmp_path / "other"))).words


def test_a_client_that_stalled_now_and_then_is_told_to_have_spoiled_the_end(tmp_path: Path) -> None:
    rows = [request(i / 10, started=START + i / 10 + (0.03 if i % 50 == 0 else 0)) for i in range(500)]
    words = read(run_report.write(write_run(tmp_path, rows))).words
    assert "The client was the bottleneck at p99, but not at the median." in words


def test_a_closed_loop_says_what_it_hides(tmp_path: Path) -> None:
    write_run(tmp_path, [request(i, started=START + i) for i in range(50)])
    assert (
        "Closed loop: each user sent its next request after the previous answer."
        in read(run_report.write(tmp_path)).words
    )


def test_nothing_that_a_server_says_becomes_markup(tmp_path: Path) -> None:
    evil = '<script>alert("1")</script>'
    write_run(
        tmp_path,
        [request(0), request(1, outcome=evil, request_id=evil, scenario=evil)],
        processes=[(0, evil, 1, 1, 1, 1), (1, evil, 1, 1, 1, 1)],
        target={"url": evil, "model": evil},
        profile=evil,
        notes=[evil],
    )
    page = read(run_report.write(tmp_path))
    assert "script" not in page.tags
    assert page.words.count(evil) >= 6


def test_a_run_without_an_answer_is_a_page_too(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [])
    assert "Nothing measured." in read(run_report.write(tmp_path / "a")).words
    write_run(tmp_path / "b", [request(i, ttft_ms=None, outcome="engine_error", status=502) for i in range(3)])
    assert "3 of 3 requests failed (100 %); none was answered." in read(run_report.write(tmp_path / "b")).words


def test_a_baseline_stands_beside_the_target_with_ratios(tmp_path: Path) -> None:
    write_run(
        tmp_path,
        [*rich_rows(more_ms=40), *rich_rows("baseline")],
        gaps={"main": GAPS, "baseline": GAPS},
        baseline={"url": "http://127.0.0.1:8011/v1"},
    )
    page = read(run_report.write(tmp_path))
    table = page.tables["Figures: target and baseline on the same schedule (one after the other)"]
    assert table[0] == ["", "target", "baseline", "difference", "target ÷ baseline"]
    assert ["time to first token, p50", "80.0 ms", "40.0 ms", "+40.0 ms", "2.00×"] in table
    assert "a model at http://127.0.0.1:8011/v1; same schedule" in page.words
    assert "time to first token: p50 80.0 ms against 40.0 ms (2.00×)" in page.words


def test_two_runs_side_by_side_say_what_was_not_the_same(tmp_path: Path) -> None:
    rich(tmp_path / "new")
    write_run(tmp_path / "old", steady(60), seed=8, machine={"cpu": "Another"})
    page = read(run_report.write(tmp_path / "new", tmp_path / "old"))
    assert "Caution: the runs differ in machine and seed" in page.words
    assert "p50 40.0 ms against 50.0 ms (0.80×)" in page.words
    table = page.tables["A ÷ B: below 1, A took less time or did fewer"]
    assert ["time to first token, p50", "40.0 ms", "50.0 ms", "−10.0 ms", "0.80×"] in table
    assert ["machine.cpu", "A processor", "Another"] in page.tables["Differences"]
    assert (tmp_path / "new" / "against-old.html").exists()


def test_equal_runs_are_compared_without_a_warning(tmp_path: Path) -> None:
    write_run(tmp_path / "a", steady(60))
    write_run(tmp_path / "b", steady(60))
    words = read(run_report.write(tmp_path / "a", tmp_path / "b")).words
    assert "Caution:" not in words
    assert "No differences." in words


def test_warmer_caches_on_one_side_are_told(tmp_path: Path) -> None:
    write_run(tmp_path / "a", steady(60))
    write_run(tmp_path / "b", steady(60, cached_tokens=15))
    words = read(run_report.write(tmp_path / "a", tmp_path / "b")).words
    assert "0 % of A's prompt tokens and 75 % of B's were in the engines' prefix caches" in words
    write_run(tmp_path / "c", steady(60, cached_tokens=1))
    assert "prefix caches:" not in read(run_report.write(tmp_path / "a", tmp_path / "c")).words


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium here: apt install chromium")
def test_a_browser_shows_it_without_a_complaint(tmp_path: Path) -> None:
    file = run_report.write(rich(tmp_path))
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*command, "--dump-dom", file.as_uri()], capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout.count("<svg") == 9
    assert "CONSOLE" not in done.stderr


def test_what_was_done_on_purpose_is_marked_and_told(tmp_path: Path) -> None:
    rows = [*steady(60), request(24.5, outcome="503 engine_unavailable", status=503)]
    folder = write_run(tmp_path, rows, processes=[(at, "gateway", 1, 2**26, at / 10, 3) for at in range(60)])
    before = run_report.render(results.read(folder)).count('class="mark"')
    lines = ["time,ended,name", f"{START + 24},{START + 26},engine killed", f"{START + 30},{START + 31},<b>"]
    (folder / "events.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    html = run_report.render(results.read(folder))
    assert html.count('class="mark"') == before + 6  # two in latency, requests a second and memory
    assert "engine killed" in html and "<b>" not in html
    assert '<td>engine killed</td><td class="n">2.0 s</td>' in html
    many = [f"{START + at},{START + at + 1},engine killed" for at in range(2, 50, 4)]
    (folder / "events.csv").write_text("\n".join(["time,ended,name", *many]) + "\n", encoding="utf-8")
    html = run_report.render(results.read(folder))
    assert html.count("engine killed") == len(many)  # in the table only: their names would lie upon one another


def test_an_event_without_its_time_is_refused_with_its_place(tmp_path: Path) -> None:
    folder = write_run(tmp_path, steady(1))
    (folder / "events.csv").write_text("time,ended,name\nnow,2,engine killed\n", encoding="utf-8")
    with pytest.raises(ResultsError, match=r"events\.csv:2"):
        results.read(folder)
