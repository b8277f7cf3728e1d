"""State changes of models between two responses of the engine."""

from quarterdeck.cli import model_readiness


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
