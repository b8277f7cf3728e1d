"""Schedules: constant, Poisson or from a trace, and reproducible by seed."""

import itertools
import statistics
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.load.run.arrivals import check, read_trace, schedule
from quarterdeck.load.run.profile import Profile, ProfileError, make


def profile(**values: Any) -> Profile:
    defaults = {"scenarios": {"stream": {"weight": 3}, "chat": {"weight": 1}}, "duration": 60}
    return make({**defaults, **values}, "test")


def test_constant_arrivals_are_even() -> None:
    times = [a.at for a in schedule(profile(arrivals="constant", shape={"kind": "constant", "level": 40}))]
    assert len(times) in (2399, 2400)
    assert all(abs(b - a - 0.025) < 1e-6 for a, b in itertools.pairwise(times))


def test_poisson_arrivals_have_the_rate_and_its_spread() -> None:
    times = [a.at for a in schedule(profile(arrivals="poisson", shape={"kind": "constant", "level": 100}))]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert len(times) == pytest.approx(6000, rel=0.05)
    assert statistics.pstdev(gaps) == pytest.approx(statistics.fmean(gaps), rel=0.1)  # exponential: both are 1 / rate


def test_a_seed_is_a_schedule() -> None:
    assert list(schedule(profile(seed=1))) == list(schedule(profile(seed=1)))
    assert list(schedule(profile(seed=1))) != list(schedule(profile(seed=2)))


def test_scenarios_come_by_their_weights_and_carry_the_rate_that_was_wanted() -> None:
    shape = {"kind": "steps", "levels": [10, 50], "each": "30s"}
    found = list(schedule(profile(arrivals="constant", shape=shape)))
    streams = sum(a.scenario == "stream" for a in found)
    assert streams / len(found) == pytest.approx(0.75, abs=0.05)
    assert {a.rate for a in found} == {10, 50}
    assert all((a.at < 30) == (a.rate == 10) for a in found)
    assert [a.index for a in found] == list(range(len(found)))


FORMS = {
    "ours": "seconds,input_tokens,output_tokens,scenario\n1.5,10,20,chat\n1,5,6,stream\n",
    "azure": "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.5799600,10,20\n"
    "2023-11-16 18:17:03.0799600,5,6\n",
    "burstgpt": "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n45.5,GPT-4,10,20,30,API log\n"
    "45,ChatGPT,5,6,11,Conversation log\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_traces_of_three_forms_are_read_in_order_of_time(form: str, tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text(FORMS[form], encoding="utf-8")
    rows = read_trace(tmp_path / "trace.csv")
    assert [(round(row.at, 6), row.input_tokens, row.output_tokens) for row in rows] == [(0, 5, 6), (0.5, 10, 20)]


def test_a_trace_is_replayed_at_its_speed_until_the_duration_ends(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text(FORMS["ours"] + "30,1,1,chat\n", encoding="utf-8")
    values = {"file": str(tmp_path / "trace.csv"), "speed": 2}
    found = list(schedule(profile(arrivals="trace", trace=values, duration=5)))
    assert [(a.at, a.scenario, a.input_tokens, a.max_tokens) for a in found] == [
        (0, "stream", 5, 6),
        (0.25, "chat", 10, 20),
    ]


def test_a_trace_that_asks_what_the_profile_does_not_know_is_refused_before_the_start(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("seconds,input_tokens,output_tokens,scenario\n0,1,1,rag\n", encoding="utf-8")
    with pytest.raises(ProfileError, match="scenario 'rag' is not in the profile"):
        check(profile(arrivals="trace", trace={"file": str(tmp_path / "trace.csv")}))


def test_a_trace_without_its_columns_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("when,much\n1,2\n", encoding="utf-8")
    with pytest.raises(ProfileError, match=r"trace\.csv: no column seconds or timestamp"):
        read_trace(tmp_path / "trace.csv")
