"""State changes of models between two responses of the engine."""

import itertools
from typing import Any

from quarterdeck.cli import model_readiness


def listed(**fields: Any) -> dict[str, model_readiness.ModelState]:
    return model_readiness.read({"endpoints": [], "models": [{"name": "m", **fields}]}, [])


def told(before: dict[str, model_readiness.ModelState], now: dict[str, model_readiness.ModelState]) -> list[str]:
    return [text for _, text in model_readiness.changes(before, now)]


def test_only_changes_are_told() -> None:
    loading = model_readiness.read({"endpoints": [{"model": "m", "state": "starting", "detail": "loading"}]}, ["m"])
    ready = model_readiness.read({"endpoints": [{"model": "m", "state": "ready", "detail": ""}]}, ["m"])
    assert model_readiness.changes({}, loading) == [("m", "loading")]
    assert model_readiness.changes(loading, loading) == []
    assert model_readiness.changes(loading, ready) == [("m", "ready")]
    assert model_readiness.changes(ready, loading) == [("m", "no longer ready: loading")]


def test_a_model_is_ready_when_one_of_its_replicas_is() -> None:
    body = {"endpoints": [{"model": "m", "state": "starting"}, {"model": "m", "state": "ready"}]}
    assert model_readiness.read(body, ["m"])["m"].is_ready


def test_a_strange_answer_of_the_engine_is_a_model_that_starts() -> None:
    for body in (None, [], {"endpoints": None}, {"endpoints": ["x"]}):
        assert not model_readiness.read(body, ["m"])["m"].is_ready


def test_a_model_that_was_added_later_is_told_with_its_estimate() -> None:
    loading = listed(state="loading", detail="loading weights", seconds_left=41)
    assert told({}, loading) == ["loading weights (about 40 s)"]
    assert told(loading, listed(state="loading", detail="loading weights", seconds_left=31)) == []
    assert told(loading, listed(state="ready")) == ["ready"]


def test_a_download_is_told_for_every_tenth() -> None:
    states = [
        listed(state="downloading", detail=f"downloading {percent} %", progress=percent / 100)
        for percent in (1, 5, 9, 12, 19, 34)
    ]
    lines = [line for before, now in itertools.pairwise(states) for line in told(before, now)]
    assert lines == ["downloading 12 %", "downloading 34 %"]


def test_a_failure_is_told_once_with_the_time_of_the_next_attempt() -> None:
    failed = listed(state="failed", reason="does_not_fit", detail="does not fit: needs 5.1 GB", retry_seconds=10.0)
    assert told({}, failed) == ["failed: does not fit: needs 5.1 GB; next attempt in 10 s"]
    assert told(failed, listed(state="failed", reason="does_not_fit", detail="does not fit: needs 5.1 GB")) == []


def test_a_change_that_is_not_in_force_is_told_of_a_ready_model() -> None:
    ready, changed = listed(state="ready"), listed(state="ready", reason="invalid", detail="its change is not in force")
    assert told(ready, changed) == ["ready, but its change is not in force"]
    assert changed["m"].is_ready


def test_a_removed_model_is_told() -> None:
    assert model_readiness.changes(listed(state="ready"), {}) == [("m", "removed")]
