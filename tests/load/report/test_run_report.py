"""The report's figures, read back from the page."""

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.load.folders import request, rich, write_run
from tests.load.report.reader import read

from quarterdeck.load.analysis import budgets, results
from quarterdeck.load.report import run_report


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
    values = budgets.parse({"ttft_p99_ms": 30, "error_rate": 0.1})
    budgets.write(tmp_path, budgets.check(values, results.read(tmp_path)))
    page = read(run_report.write(tmp_path))
    assert "Failed. The time to first token at p99 was 40.0 ms; at most 30 ms is allowed." in page.words
    (name,) = [name for name in page.tables if name.startswith("Budgets")]
    assert [row[:2] for row in page.tables[name][1:]] == [
        ["ttft_p99_ms", "✗\N{NO-BREAK SPACE}exceeded"],
        ["error_rate", "✓\N{NO-BREAK SPACE}kept"],
    ]
    html = (tmp_path / "report.html").read_text()
    assert '<p class="verdict bad"><strong>✗ Failed.</strong>' in html
    assert '<td class="bad" data-head="verdict">✗' in html


def test_a_plot_follows_the_verdict_and_unchecked_budgets_come_last(tmp_path: Path) -> None:
    rich(tmp_path)
    values = budgets.parse({"ttft_p50_over_baseline_ms": 1, "ttft_p99_ms": 30, "error_rate": 0.1})
    budgets.write(tmp_path, budgets.check(values, results.read(tmp_path)))
    file = run_report.write(tmp_path)
    html, page = file.read_text(), read(file)
    assert html.index('class="verdict') < html.index("<svg") < html.index("<table")
    (name,) = [name for name in page.tables if name.startswith("Budgets")]
    assert [row[0] for row in page.tables[name][1:]] == ["ttft_p99_ms", "error_rate", "ttft_p50_over_baseline_ms"]


def test_a_run_without_an_answer_is_a_page_too(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [])
    assert "Nothing measured." in read(run_report.write(tmp_path / "a")).words
    write_run(tmp_path / "b", [request(i, ttft_ms=None, outcome="engine_error", status=502) for i in range(3)])
    assert "3 of 3 requests failed (100 %); none was answered." in read(run_report.write(tmp_path / "b")).words


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium here: apt install chromium")
def test_tables_and_plots_fit_a_page_of_500_pixels(tmp_path: Path) -> None:
    page = run_report.write(rich(tmp_path)).read_text().replace("<details>", "<details open>")
    measure = (
        "<script>document.title = [...document.querySelectorAll('html, .scroll')]"
        ".filter(e => e.scrollWidth > e.clientWidth).map(e => e.ariaLabel + e.scrollWidth).join() || 'fits'</script>"
    )
    file = tmp_path / "measured.html"
    file.write_text(page.replace("</body>", f"{measure}</body>"))
    assert "<title>fits</title>" in dumped(file, tmp_path, "--window-size=500,2000").stdout


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium here: apt install chromium")
def test_a_browser_shows_it_without_a_complaint(tmp_path: Path) -> None:
    file = run_report.write(rich(tmp_path))
    done = dumped(file, tmp_path)
    assert done.stdout.count("<svg") == 9
    assert "CONSOLE" not in done.stderr


def dumped(file: Path, folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    """The page as Chromium has it after loading."""
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    return subprocess.run(
        [*command, *options, "--dump-dom", file.as_uri()], capture_output=True, text=True, timeout=100, check=True
    )
