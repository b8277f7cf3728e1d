"""Load runs as processes on locust, against the simulated engine."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.load.servers import ROOT, simulator

from quarterdeck.load.__main__ import parser
from quarterdeck.load.analysis import results, summary
from quarterdeck.load.run import profile_options
from quarterdeck.load.run.arrivals import schedule


@pytest.fixture(scope="session")
def python() -> Path:
    """The interpreter of the environment `load`, created if missing."""
    subprocess.run([sys.executable, "environments/make.py", "load"], cwd=ROOT, check=True, capture_output=True)
    return ROOT / ".envs" / "load" / "bin" / "python"


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    times = ("--time-to-first-token", "20ms", "--inter-token-latency", "2ms")
    with simulator("--embedding-model", "embedder", *times) as url:
        yield url


def load(python: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "QUARTERDECK_STATE": str(folder / "state")}
    command = [str(python), "-m", "quarterdeck.load", "run", *words, "--out", str(folder / "out")]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=90, check=False)


def test_every_scenario_is_asked_and_locust_counts_what_is_recorded(python: Path, engine: str, tmp_path: Path) -> None:
    names = "chat,stream,session,embeddings,rag,tools,repeat,disconnect,slow_reader"
    words = ("--rate", "40", "--arrivals", "constant", "--duration", "4", "--scenarios", names)
    done = load(python, tmp_path, *words, "--url", engine, "--slo", "ttft_ms=2000")
    assert done.returncode == 0, done.stderr
    run = results.read(tmp_path / "out")
    assert {request.scenario for request in run.requests} == set(names.split(","))
    assert len(run.requests) in (159, 160)
    assert not [request for request in run.requests if request.is_error]
    whole = summary.measured(run)
    with (tmp_path / "out" / "locust_stats.csv").open() as file:
        rows = {(row["Type"], row["Name"]): row for row in csv.DictReader(file)}
    for name in ("stream", "session", "rag"):
        part = whole.of(name)
        assert int(rows["SSE", name]["Request Count"]) == len(part.requests)
        assert int(rows["TTFT", name]["Request Count"]) == len(part.ttft)
        assert int(rows["GOOD", name]["Request Count"]) == part.good
        gaps = part.all_gaps
        assert gaps is not None
        assert int(rows["ITL", name]["Request Count"]) == gaps.total
    assert (tmp_path / "out" / "report.html").exists()


def test_workers_ask_together_what_the_schedule_says(python: Path, engine: str, tmp_path: Path) -> None:
    words = ("--rate", "40", "--duration", "2", "--seed", "3")
    done = load(python, tmp_path, *words, "--workers", "2", "--url", engine, "--no-report")
    assert done.returncode == 0, done.stderr
    run = results.read(tmp_path / "out")
    due = [arrival.at for arrival in schedule(profile_options.profile_of(parser().parse_args(["run", *words])))]
    assert sorted(request.intended for request in run.requests) == pytest.approx(due, abs=1e-4)
    assert {request.outcome for request in run.requests} == {"ok"}


@pytest.mark.long
def test_a_ramp_ends_itself_at_the_knee(python: Path, tmp_path: Path) -> None:
    profile = tmp_path / "ramp.yaml"
    shape = {"kind": "saturation", "start": 20, "factor": 5, "each": 2, "most": 100}
    values = {"arrivals": "constant", "shape": shape, "scenarios": {"stream": {"max_tokens": 4}}}
    profile.write_text(json.dumps(values), encoding="utf-8")  # JSON is YAML
    with simulator("--max-num-seqs", "4", "--time-to-first-token", "80ms") as url:  # 4 slots of 80 ms: 50 per second
        done = load(python, tmp_path, str(profile), "--url", url, "--no-report")
    assert done.returncode == 0, done.stderr
    assert "Knee: 20.0 requests/s, below 100.0" in done.stdout


def test_a_broken_budget_is_a_line_and_exit_status_1(python: Path, engine: str, tmp_path: Path) -> None:
    budgets = tmp_path / "budgets.yaml"
    budgets.write_text("ttft_p50_ms: 5\nerror_rate: 0.01\n", encoding="utf-8")
    words = ("--rate", "20", "--duration", "2", "--url", engine, "--budgets", str(budgets), "--no-report")
    done = load(python, tmp_path, *words)
    assert done.returncode == 1
    broken = [line for line in done.stdout.splitlines() if line.startswith("broken")]
    assert len(broken) == 1
    assert "ttft_p50_ms" in broken[0]


def test_a_bad_target_is_one_line_and_exit_status_2(python: Path, tmp_path: Path) -> None:
    done = load(python, tmp_path, "--rate", "1", "--url", "http://127.0.0.1:1")
    assert done.returncode == 2
    assert done.stderr == "error: 127.0.0.1:1: connection refused\n"
    assert not (tmp_path / "out").exists()
