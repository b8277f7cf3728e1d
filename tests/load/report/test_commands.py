"""The commands `report` and `check`, and the end of a run: files, terminal output and exit status."""

import json
import re
import sqlite3
from pathlib import Path

import pytest
from tests.load.folders import request, rich, steady, write_run

from quarterdeck.load.analysis import budgets
from quarterdeck.load.report import commands


def test_the_command_prints_the_figures_and_where_the_page_lies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.write_report(rich(tmp_path)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"time to first token, p50 +40\.0 ms", lines[1])
    assert "The client kept up." in lines[-3]
    assert lines[-1] == str(tmp_path / "report.html")
    assert commands.write_report(tmp_path / "nowhere") == 2
    assert "no run.json" in capsys.readouterr().err


def test_check_leaves_the_verdicts_beside_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "budgets.yaml"
    file.write_text("ttft_p99_ms: 40\nerror_rate: 0\n", encoding="utf-8")
    folder = write_run(tmp_path / "run", steady(1))
    assert commands.check(folder, file) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("broken      ttft_p99_ms: ")
    assert [v.outcome for v in budgets.read(folder)] == ["broken", "kept"]
    assert commands.check(tmp_path / "nowhere", file) == 2
    assert "no run.json" in capsys.readouterr().err


def test_a_finished_run_is_shown_with_its_ledger_and_its_budgets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path / "run", [request(0, request_id="a", input_tokens=100, cached_tokens=40)])
    with sqlite3.connect(tmp_path / "quarterdeck.db") as database:
        columns = "id, input_tokens, cached_tokens, output_tokens, price_input, price_cached, price_output, cost"
        database.execute(f"CREATE TABLE ledger ({columns})")
        database.execute("INSERT INTO ledger VALUES ('a', 100, 40, 10, '1', '0.5', '10', '0.00018')")
    database.close()
    file = tmp_path / "budgets.yaml"
    file.write_text("ttft_p99_ms: 40\nledger_drift: 0\n", encoding="utf-8")
    assert commands.finish_run(folder, state=tmp_path, budgets_file=file, with_report=True) == 1
    out = capsys.readouterr().out
    assert "Ledger: 1 of 1 answers, 110 of 110 tokens" in out
    assert f"Report: {folder / 'report.html'}" in out
    assert [(v.name, v.outcome) for v in budgets.read(folder)] == [("ttft_p99_ms", "broken"), ("ledger_drift", "kept")]
    about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert (about["ledger"]["drift"], len(about["notes"])) == (0.0, 1)
