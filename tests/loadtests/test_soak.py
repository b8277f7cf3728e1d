"""The soak's verdicts on made-up attempts and rows, and a soak of a minute on real processes."""

import asyncio
import os
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from loadtests.chaos import faults, verdicts
from loadtests.chaos.audit import Auditor
from loadtests.chaos.faults import FAULTS, GRACE_SECONDS, Fault, InjectedFault
from loadtests.chaos.platform import MODEL
from loadtests.chaos.run import Soak, SoakOptions
from loadtests.chaos.traffic import Attempt, Caller

from quarterdeck import processes
from quarterdeck.load.analysis.results import ProcessReading
from quarterdeck.load.report import run_report
from quarterdeck.record import RequestRecord

FREE = Caller("free", "sk", 1.0)
RIGHT = Attempt(
    caller=FREE,
    tag="n1",
    gateway=1,
    operation="chat",
    model=MODEL,
    is_stream=True,
    started=100.0,
    ended=100.5,
    status=200,
    outcome="ok",
    code=None,
    request_id="req_" + "a" * 32,
    cache="",
    finish="length",
    usage=(60, 0, 64),
    pieces=64,
    max_tokens=64,
)
ROW = RequestRecord(
    id=RIGHT.request_id, org="default", team="default", key="k", operation="chat", model=MODEL, stream=True,
    started=100.0, ended=100.5, status="ok", http_status=200, input_tokens=60, output_tokens=64, usage_source="engine",
    price_input=Decimal(3), price_cached=Decimal("0.3"), price_output=Decimal(15), cost=Decimal("0.00114"), user="n1",
)  # fmt: skip
TRACES = {ROW.trace_id: ROW.cost}


def named(name: str) -> Fault:
    return next(fault for fault in FAULTS if fault.name == name)


def complaints(asked: Attempt, *happened: InjectedFault) -> list[str]:
    return [line for verdict in verdicts.answers([asked], happened) for line in verdict.complaints]


def failed(outcome: str, **fields: object) -> Attempt:
    status, _, code = outcome.partition(" ")
    values = {"outcome": outcome, "status": int(status) if status.isdigit() else 200, "code": code or None}
    return replace(RIGHT, **(values | fields))


def test_a_right_answer_is_no_complaint() -> None:
    assert complaints(RIGHT) == []


@pytest.mark.parametrize(
    "wrong",
    [
        replace(RIGHT, usage=(60, 0, 63), pieces=63),
        replace(RIGHT, usage=None, pieces=63),
        replace(RIGHT, finish=None),
        failed("cut"),
        failed("wrong: half an event at the end"),
        failed("hung"),
        failed("broken: ReadError: ", status=200),
    ],
    ids=["tokens", "pieces", "no reason", "cut", "half", "hung", "broken"],
)
def test_what_must_never_be_is_a_complaint_under_every_fault(wrong: Attempt) -> None:
    assert complaints(wrong, *[InjectedFault(fault, 90.0, 101.0) for fault in FAULTS])


def test_an_error_is_allowed_by_the_fault_that_explains_it_and_while_it_is_under_way() -> None:
    lost = failed("event engine_error")
    killed = named("engine killed")
    assert complaints(lost, InjectedFault(killed, 99.0, 103.0)) == []
    assert complaints(lost, InjectedFault(killed, 99.0)) == []
    assert complaints(lost, InjectedFault(killed, 90.0, 100.0 - GRACE_SECONDS + 0.1)) == []
    assert complaints(lost, InjectedFault(killed, 80.0, 100.0 - GRACE_SECONDS - 0.1))
    assert complaints(lost, InjectedFault(named("worker killed"), 99.0, 103.0))
    assert "outside of any fault" in complaints(lost)[0]


def test_only_who_has_a_budget_may_be_refused_while_redis_is_away() -> None:
    refused = failed("503 limits_unavailable")
    away = InjectedFault(named("Redis restarted"), 99.0, 103.0)
    assert complaints(refused, away)
    assert complaints(replace(refused, caller=replace(FREE, has_budget=True)), away) == []


def test_a_limit_may_refuse_whom_it_holds_at_any_time() -> None:
    limited = replace(FREE, allows=frozenset({"429 rate_limit_exceeded"}))
    assert complaints(failed("429 rate_limit_exceeded", caller=limited)) == []
    assert complaints(failed("429 rate_limit_exceeded"))


@pytest.mark.parametrize(
    ("rows", "traces", "word"),
    [
        ([ROW], TRACES, None),
        ([], {}, "has no row"),
        ([ROW, ROW], TRACES, "a duplicate"),
        ([ROW], {}, "has no trace"),
        ([ROW], {ROW.trace_id: Decimal("0.1")}, "costs 0.1"),
        ([ROW], {**TRACES, "b" * 32: Decimal(0)}, "has no row"),
    ],
    ids=["equal", "no row", "twice", "no trace", "another cost", "a strange trace"],
)
def test_ledger_client_and_traces_must_say_the_same(
    rows: list[RequestRecord], traces: dict[str, Decimal], word: str | None
) -> None:
    auditor = Auditor([RIGHT])
    auditor.add(rows)
    values = [line for verdict in verdicts.audit(auditor.close(traces)) for line in verdict.complaints]
    assert (not values) if word is None else any(word in line for line in values), values


def test_tokens_and_dollars_are_those_of_the_answer() -> None:
    for field, value in (("output_tokens", 63), ("cost", Decimal("0.0011")), ("price_output", Decimal(16))):
        wrong = RequestRecord(**{name: getattr(ROW, name) for name in ROW.__struct_fields__} | {field: value})
        auditor = Auditor([RIGHT])
        auditor.add([wrong])
        assert auditor.close({wrong.trace_id: wrong.cost}).complaints, field


def test_a_lost_request_is_found_by_its_id() -> None:
    lost = RequestRecord(**{name: getattr(ROW, name) for name in ROW.__struct_fields__} | {"user": None})
    auditor = Auditor([RIGHT])
    auditor.add([lost])
    assert auditor.close(TRACES).complaints == []


def test_refused_is_without_a_row_and_broken_may_be() -> None:
    for entry, is_right in (
        (failed("429 rate_limit_exceeded", code="rate_limit_exceeded"), True),
        (failed("refused", status=0), True),
        (failed("502 engine_error"), False),
    ):
        assert (Auditor([entry]).close({}).complaints == []) is is_right


@pytest.mark.parametrize(
    ("minutes", "mib_per_hour", "holds"), [(30, 10, True), (30, 30, False), (3, 100, True), (3, 900, False)]
)
def test_memory_is_flat_or_it_is_said(minutes: int, mib_per_hour: float, holds: bool) -> None:
    def samples(start: float) -> list[ProcessReading]:
        seconds = range(0, minutes * 60, 2)
        return [ProcessReading(start + at, int((100 + mib_per_hour * at / 3600) * 2**20), 0.0, 1) for at in seconds]

    (one,) = verdicts.memory({("gateway-1", 7): samples(60.0), ("gateway-1", 6): samples(-9e5)}, settled_from=50.0)
    assert one.holds is holds


def test_each_fault_comes_once_before_any_comes_again_and_the_seed_says_in_which_order() -> None:
    upcoming = faults.order(5)
    first, second = [[next(upcoming) for _ in FAULTS] for _ in range(2)]
    assert set(first) == set(second) == set(FAULTS)
    assert first != second
    again = faults.order(5)
    assert [next(again) for _ in FAULTS] == first


@pytest.mark.faults
@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_minute_of_faults_leaves_nothing_wrong(tmp_path: Path) -> None:
    """Gateways are rolled, the worker is killed, Redis restarted, an engine killed, the trace backend stopped."""
    names = ("gateways rolled", "worker killed", "Redis restarted", "engine killed", "trace backend away")
    chosen = tuple(map(named, names))
    seed = next(n for n in range(1000) if next(faults.order(n, chosen)).name == names[0])
    options = SoakOptions(minutes=1.2, rate=12, every=10, seed=seed, faults=chosen)
    before = {process.pid for process in processes.descendants(os.getpid())}
    soak = Soak(options, tmp_path / "run")
    found = await soak.run()
    values = [f"{verdict.name}: {line}" for verdict in found for line in verdict.complaints]
    assert [line for line in values if not line.startswith("no leaked process")] == []
    assert {process.pid for process in processes.descendants(os.getpid())} <= before
    html = await asyncio.to_thread(run_report.write(tmp_path / "run").read_text, encoding="utf-8")
    assert "gateways rolled" in html
