"""Demand: what is asked of each model, by target, as the operator needs it to scale and to judge."""

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.fakes import FakeEndpoints, endpoint
from tests.records import a_record, records

from quarterdeck.gateway.cluster import demand as demand_module
from quarterdeck.gateway.cluster.demand import BATCH, MAX_MODELS, Demand
from quarterdeck.record import Attempt, RequestRecord


class Bench:
    def __init__(self) -> None:
        self.endpoints = FakeEndpoints()
        self.waiting: dict[str, int] = {}
        self.is_draining = False
        self.now = 100.0
        self.demand = Demand(self.endpoints, lambda: self.waiting, lambda: self.is_draining, lambda: self.now)

    def of(self, model: str) -> dict[str, Any]:
        found: dict[str, Any] = self.demand.report()["models"][model]
        return found

    def count(self, *those: RequestRecord) -> None:
        for each in those:
            self.demand.observe(each)


def an_attempt(error: str | None = None, status: int = 200, model: str = "", started: float = 10.0) -> Attempt:
    return Attempt("e", started, started + 1, status, error, model)


def test_requests_in_flight_are_those_at_endpoints_and_those_that_wait() -> None:
    bench = Bench()
    bench.endpoints.endpoints = [
        endpoint("a#1", "a", requests=3),
        endpoint("a#2", "a", "draining", requests=2),
        endpoint("b#1", "b"),
    ]
    bench.waiting = {"c": 4}
    assert (bench.of("a")["in_flight"], bench.of("a")["waiting"]) == (5, 0)
    assert (bench.of("c")["in_flight"], bench.of("c")["waiting"]) == (0, 4)
    assert "b" not in bench.demand.report()["models"]


def test_a_finished_request_is_counted_at_once_in_the_next_report() -> None:
    bench = Bench()
    bench.count(a_record(model="a", attempts=(an_attempt(),)))
    assert (bench.of("a")["requests"], bench.of("a")["errors"], bench.of("a")["failures"]) == (1, 0, 0)


def test_a_target_that_failed_is_blamed_though_another_answered() -> None:
    bench = Bench()
    attempts = (an_attempt("engine_unavailable", 0, "chat@r2"), an_attempt(None, 200, "chat@r1"))
    bench.count(a_record(model="chat@r1", route="chat", attempts=attempts))
    new, old = bench.of("chat@r2"), bench.of("chat@r1")
    assert (new["attempts"], new["failures"], new["requests"], new["errors"]) == (1, 1, 0, 0)
    assert (old["attempts"], old["failures"], old["requests"], old["errors"]) == (1, 0, 1, 0)


def test_what_is_not_the_platforms_fault_is_no_error() -> None:
    bench = Bench()
    bench.count(
        a_record(model="a", status="error", http_status=400, attempts=(an_attempt("invalid_value", 400),)),
        a_record(model="a", status="error", http_status=429, attempts=(an_attempt("engine_overloaded", 429),)),
        a_record(model="a", status="cancelled", http_status=499, attempts=(an_attempt("cancelled", 200),)),
    )
    assert (bench.of("a")["requests"], bench.of("a")["errors"], bench.of("a")["failures"]) == (3, 0, 0)


def test_a_stream_that_broke_off_is_an_error_and_a_failure() -> None:
    bench = Bench()
    bench.count(a_record(model="a", status="error", http_status=200, attempts=(an_attempt("engine_error", 200),)))
    assert (bench.of("a")["errors"], bench.of("a")["failures"]) == (1, 1)


def test_the_time_to_the_first_token_begins_with_the_call_that_gave_it() -> None:
    bench = Bench()
    attempts = (
        an_attempt("engine_unavailable", 0, started=100.0),
        an_attempt(started=105.0),
        an_attempt(started=120.0),
    )
    bench.count(a_record(model="a", started=0.0, first_token=105.3, attempts=attempts))
    ttft = bench.of("a")["ttft_ms"]
    assert (ttft["count"], ttft["sum"]) == (1, 300.0)
    assert dict(map(tuple, ttft["buckets"]))[250] == 0
    assert dict(map(tuple, ttft["buckets"]))[500] == 1


def test_a_cached_answer_says_nothing_of_an_endpoint() -> None:
    bench = Bench()
    bench.count(a_record(model="a", attempts=()))
    assert bench.of("a")["ttft_ms"]["count"] == 0


def test_names_are_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(demand_module, "MAX_MODELS", 5)
    bench = Bench()
    bench.count(*[a_record(model=f"m{number}") for number in range(20)])
    assert list(bench.demand.report()["models"]) == [f"m{number}" for number in range(15, 20)]
    assert MAX_MODELS >= 1000


def test_records_are_not_kept() -> None:
    bench = Bench()
    bench.count(*[a_record(model="a") for _ in range(BATCH)])
    assert bench.demand._records == []


@given(st.lists(records, max_size=8))
def test_any_record_can_be_counted(those: list[RequestRecord]) -> None:
    bench = Bench()
    bench.count(*those)
    models = bench.demand.report()["models"]
    assert sum(each["requests"] for each in models.values()) == len(those)
    assert sum(each["attempts"] for each in models.values()) == sum(len(each.attempts) for each in those)


async def test_a_wait_ends_when_a_cold_request_arrives() -> None:
    bench = Bench()
    version = bench.demand.version
    waiting = asyncio.create_task(bench.demand.changed(version, 30))
    await asyncio.sleep(0)
    assert not waiting.done()
    bench.demand.announce("a")
    await waiting
    assert bench.demand.version == version + 1
    await bench.demand.changed(version, 30)  # it missed that one: it does not wait


async def test_all_who_wait_are_told() -> None:
    bench = Bench()
    waiting = [asyncio.create_task(bench.demand.changed(bench.demand.version, 30)) for _ in range(3)]
    await asyncio.sleep(0)
    bench.demand.announce("a")
    await asyncio.gather(*waiting)


async def test_a_wait_ends_with_its_time_and_with_a_drain() -> None:
    bench = Bench()
    await bench.demand.changed(bench.demand.version, 0.001)
    bench.is_draining = True
    await bench.demand.changed(bench.demand.version, 30)


def test_a_request_that_was_refused_for_want_of_a_replica_counts_as_waiting_for_a_while() -> None:
    """With coldStart Reject nothing waits at the gateway, and a replica has to start all the same."""
    bench = Bench()
    version = bench.demand.version
    bench.demand.refuse("a")
    bench.demand.refuse("a")
    assert (bench.of("a")["waiting"], bench.demand.version) == (1, version + 1)
    bench.waiting = {"a": 3}
    assert bench.of("a")["waiting"] == 3
    bench.waiting = {}
    bench.now += 10
    bench.demand.refuse("a")
    bench.now += 10
    assert bench.of("a")["waiting"] == 1
    bench.now += 10
    assert "a" not in bench.demand.report()["models"]


def test_refused_models_are_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(demand_module, "MAX_MODELS", 3)
    bench = Bench()
    for number in range(10):
        bench.demand.refuse(f"m{number}")
    assert len(bench.demand.report()["models"]) == 3
