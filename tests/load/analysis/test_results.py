"""Reading a result folder: optional files, and errors with their location."""

import json
from pathlib import Path

import pytest
from tests.load.folders import START, request, steady, write_run

from quarterdeck.load.analysis import results
from quarterdeck.load.analysis.results import ResultsError

GAPS = {"main": {"chat": {"edges_ms": [1, 2, 4], "counts": [3, 1]}}}


def test_a_run_is_read_with_times_since_its_start(tmp_path: Path) -> None:
    processes = [(0, "gateway", 12, 2**20, 0.5, 3), (1, "gateway", 12, 2**21, 1.0, 3)]
    metrics = [(1, 'quarterdeck_tokens_total{model="a,b"}', 5), (2, 'quarterdeck_tokens_total{model="a,b"}', "NaN")]
    rows = [request(2, ttft_ms=30, total_ms=100, started=START + 2.01, cache="HIT")]
    run = results.read(write_run(tmp_path, rows, gaps=GAPS, processes=processes, metrics=metrics))
    (row,) = run.requests
    assert (row.intended, row.ttft_ms, row.total_ms) == pytest.approx((2, 30, 100), abs=1e-3)
    assert row.lag_ms == pytest.approx(10, abs=1e-3)
    assert row.cache == "hit"
    assert run.gaps["main", "chat"].total == 4
    assert [sample.at for sample in run.processes["gateway", 12]] == [0, 1]
    assert run.series == {'quarterdeck_tokens_total{model="a,b"}': ((1.0, 5.0),)}


def test_only_two_files_must_be_there(tmp_path: Path) -> None:
    run = results.read(write_run(tmp_path, steady(1)))
    assert (run.gaps, run.processes, run.series) == ({}, {}, {})
    (tmp_path / "requests.csv").unlink()
    with pytest.raises(ResultsError, match=r"requests\.csv is missing"):
        results.read(tmp_path)
    (tmp_path / "run.json").unlink()
    with pytest.raises(ResultsError, match=r"no run\.json"):
        results.read(tmp_path)


def test_what_has_no_first_token_has_no_time_to_it(tmp_path: Path) -> None:
    (row,) = results.read(write_run(tmp_path, [request(0, ttft_ms=None, total_ms=40)])).requests
    assert row.ttft_ms is None
    assert row.answer_ms == pytest.approx(40, abs=1e-3)


@pytest.mark.parametrize(
    ("outcome", "is_ok", "is_error"),
    [("ok", True, False), ("expected:disconnected", False, False), ("timeout", False, True)],
)
def test_a_misbehaving_client_that_got_what_it_deserves_is_no_error(
    tmp_path: Path, outcome: str, is_ok: bool, is_error: bool
) -> None:
    (row,) = results.read(write_run(tmp_path, [request(0, outcome=outcome)])).requests
    assert (row.is_ok, row.is_error) == (is_ok, is_error)


def test_a_last_row_that_a_killed_run_cut_off_is_left_out(tmp_path: Path) -> None:
    write_run(tmp_path, steady(1, rate=3))
    file = tmp_path / "requests.csv"
    text = file.read_text(encoding="utf-8").rstrip("\r\n")
    file.write_text(text[:-60], encoding="utf-8")
    assert len(results.read(tmp_path).requests) == 2


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("run.json", "{", r"run\.json: "),
        ("run.json", "[]", r"run\.json: expected an object"),
        ("run.json", '{"ended": 1}', r"run\.json: started is missing"),
        ("run.json", '{"started": "soon", "ended": 1}', r"run\.json: could not convert"),
        ("requests.csv", "scenario,started,ended,outcome\r\nchat,then,2,ok\r\n", r"requests\.csv:2: could not convert"),
        ("requests.csv", "scenario,started,outcome\r\nchat,1,ok\r\n", r"requests\.csv:2: no column 'ended'"),
        ("itl.json", '{"main": {"chat": {"edges_ms": [1, 2], "counts": [1, 1]}}}', r"itl\.json: main: 2 edges"),
        ("itl.json", '{"main": {"chat": {"counts": [1, 1]}}}', r"itl\.json: main: edges_ms is missing"),
        ("itl.json", '{"main": 3}', r"itl\.json: main: "),
        ("processes.csv", "time,name,pid\r\n1,a,2\r\n", r"processes\.csv:2: no column 'rss_bytes'"),
        ("metrics.csv", "time,series,value\r\n1,a,2\r\n1,a,b\r\n", r"metrics\.csv:3: could not convert"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, name: str, text: str, expected: str) -> None:
    write_run(tmp_path, steady(1), gaps=GAPS)
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ResultsError, match=expected):
        results.read(tmp_path)


def test_rounds_are_read_as_one_run_of_two_targets(tmp_path: Path) -> None:
    order = ["1-main", "1-baseline", "2-baseline", "2-main"]
    for i, name in enumerate(order):
        start = START + 100 * i
        rows = [request(1 + 100 * i, ttft_ms=10 + i)]
        processes = [(100 * i, "gateway", 5, 2**20, 1.0, 1)]
        write_run(
            tmp_path / "rounds" / name, rows, gaps=GAPS, processes=processes, started=start, ended=start + 60,
            target={"url": name},
        )  # fmt: skip
    run = results.read(tmp_path)
    assert run.rounds == 2
    assert run.targets == ("main", "baseline")
    assert {row.intended for row in run.requests} == {1.0}
    assert [round(row.ttft_ms or 0) for row in run.requests if row.target == "main"] == [10, 13]
    assert run.gaps["main", "chat"].total == run.gaps["baseline", "chat"].total == 8
    assert [sample.at for sample in run.processes["gateway", 5]] == [0, 100, 200, 300]
    assert run.run.about["target"] == {"url": "1-main"}
    assert run.run.about["baseline"] == {"url": "1-baseline"}


def test_rounds_whose_gaps_reached_less_far_are_added_all_the_same(tmp_path: Path) -> None:
    write_run(tmp_path / "rounds" / "1-main", steady(1), gaps=GAPS)
    other = {"main": {"chat": {"edges_ms": [1, 2, 4, 8], "counts": [1, 0, 5]}}}
    write_run(tmp_path / "rounds" / "2-main", steady(1), gaps=other, started=START + 1)
    assert results.read(tmp_path).gaps["main", "chat"].counts == (4, 1, 5)


def test_what_run_json_says_besides_is_kept_as_it_is(tmp_path: Path) -> None:
    run = results.read(write_run(tmp_path, steady(1), notes=["a"], slo={"ttft_ms": 5, "itl_ms": None}))
    assert run.run.slo == {"ttft_ms": 5}
    assert run.run.about["notes"] == ["a"]
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["seed"] == run.run.seed
