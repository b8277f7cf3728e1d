"""Scores are confirmed when their requests arrive, and reach Langfuse once each."""

from typing import Any

import pytest
from tests.records import a_record
from tests.telemetry.langfuse_score_server import ScoreServer
from tests.worker.bench import ORG, Bench

from quarterdeck.record import CallerTrace
from quarterdeck.store.request_log import RequestLog
from quarterdeck.store.scores import Kind, Score, ScoreFilter, ScoreStore, new_id
from quarterdeck.telemetry.langfuse_scores import LangfuseScores
from quarterdeck.worker.conditions import Condition
from quarterdeck.worker.score_loop import ScoreLoop, langfuse_score

NOW = 1000.0


def a_score(request: str, **changes: Any) -> Score:
    fields: dict[str, Any] = {"id": new_id(), "org": ORG, "team": "default", "key": "key_1", "request": request}
    fields |= {"name": "feedback", "kind": "boolean", "value": 1.0, "created": NOW, "updated": NOW}
    return Score(**(fields | changes))


def a_loop(bench: Bench, server: ScoreServer | None = None) -> ScoreLoop:
    sink = LangfuseScores(server.url, "pk-lf-1", "sk-lf-2") if server else None
    store = ScoreStore(bench.database)
    return ScoreLoop(store, lambda: bench.orgs, Condition("scores"), bench.metrics, sink=sink, wall=lambda: NOW)


async def test_a_score_is_exported_once_its_request_is_in_the_ledger(any_bench: Bench) -> None:
    record = a_record()
    score, _ = await ScoreStore(any_bench.database).put(a_score(record.id, user="u", comment="good"))
    with ScoreServer() as server:
        loop = a_loop(any_bench, server)
        await loop.turn()
        assert server.calls == []
        await any_bench.ledger.insert([record])
        await loop.turn()
        await loop.turn()
        assert server.calls == [f"POST {score.id}"]
        found = server.scores[score.id]
    assert found["traceId"] == record.trace_id
    assert (found["value"], found["dataType"], found["comment"]) == (1.0, "BOOLEAN", "good")
    assert found["metadata"] == {"source": "feedback", "team": "default", "user": "u"}


async def test_a_score_belongs_to_the_callers_trace_that_its_request_continues(any_bench: Bench) -> None:
    record = a_record(trace=CallerTrace("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"))
    await any_bench.ledger.insert([record])
    score, _ = await ScoreStore(any_bench.database).put(a_score(record.id))
    with ScoreServer() as server:
        await a_loop(any_bench, server).turn()
        assert server.scores[score.id]["traceId"] == record.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"
    stored = await RequestLog(any_bench.database).retrieve(record.id, org=ORG)
    assert stored.trace_id == record.trace_id


async def test_changes_and_deletions_follow(bench: Bench) -> None:
    record = a_record()
    await bench.ledger.insert([record])
    store = ScoreStore(bench.database)
    with ScoreServer() as server:
        loop = a_loop(bench, server)
        score, _ = await store.put(a_score(record.id))
        await loop.turn()
        await store.put(a_score(record.id, value=0.0, updated=NOW + 1))
        await loop.turn()
        assert server.scores[score.id]["value"] == 0.0
        await store.delete(score.id, org=ORG)
        await loop.turn()
        assert server.scores == {}
        await loop.turn()
        assert len(server.calls) == 3


async def test_an_outage_of_the_server_loses_nothing(bench: Bench) -> None:
    record = a_record()
    await bench.ledger.insert([record])
    await ScoreStore(bench.database).put(a_score(record.id))
    with ScoreServer() as server:
        loop = a_loop(bench, server)
        server.status = 503
        await loop.turn()
        assert server.scores == {}
        server.status = 200
        await loop.turn()
        assert len(server.scores) == 1


async def test_a_score_that_the_server_refuses_does_not_hold_up_others(bench: Bench) -> None:
    good, bad = a_record(), a_record(id="req_short")
    await bench.ledger.insert([good, bad])
    store = ScoreStore(bench.database)
    await store.put(a_score(bad.id, updated=1.0))
    score, _ = await store.put(a_score(good.id))
    with ScoreServer() as server:
        loop = a_loop(bench, server)
        await loop.turn()
        await loop.turn()
        assert list(server.scores) == [score.id]
        assert len(server.calls) == 2
    assert bench.metrics.scores_exported.values[("refused",)] == 1


async def test_without_a_server_deleted_scores_are_removed(bench: Bench) -> None:
    record = a_record()
    await bench.ledger.insert([record])
    store = ScoreStore(bench.database)
    score, _ = await store.put(a_score(record.id))
    await store.delete(score.id, org=ORG)
    await a_loop(bench).turn()
    assert await store.remove_deleted(org=ORG) == 0
    assert await store.list(ScoreFilter(org=ORG)) == []


@pytest.mark.parametrize(
    ("kind", "fields", "expected"),
    [
        ("numeric", {"value": 0.5}, (0.5, "NUMERIC")),
        ("boolean", {"value": 0.0}, (0.0, "BOOLEAN")),
        ("categorical", {"value": None, "category": "rude"}, ("rude", "CATEGORICAL")),
        (None, {"value": None, "comment": "hm"}, ("comment", "CATEGORICAL")),
    ],
)
def test_each_kind_has_langfuses_type(kind: Kind | None, fields: dict[str, Any], expected: tuple[Any, str]) -> None:
    found = langfuse_score(a_score("req_" + "a" * 32, kind=kind, **fields), "a" * 32, "staging")
    assert (found["value"], found["dataType"]) == expected
    assert (found["traceId"], found["environment"]) == ("a" * 32, "staging")
