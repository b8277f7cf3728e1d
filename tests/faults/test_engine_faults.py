"""Every fault of the simulated engine, for every kind of request, with one endpoint and with two: how it must end.

With two endpoints the first one has the fault. What can be answered elsewhere, is: whole where nobody has seen anything
of the answer yet, and from where it broke off where it is a stream that has begun. With one, that ends with a typed
error event and without `[DONE]`; so does, with two, a stream of which more than its text decides how it goes on.

Each commit runs the faults in EACH_COMMIT, `make test-all` all of them.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from tests.faults import ledger_check, totals
from tests.faults.client import PATHS, Answer, Shape, ask
from tests.faults.stack import FIXED, SHAPES, TIMEOUTS, Stack, until
from tests.telemetry.otlp_sink import OTLPSink

from quarterdeck.record import RequestRecord

pytestmark = pytest.mark.faults

QUICK = 6.0
"""Upper bound in seconds for requests that do not wait for a timeout."""
FIRST, IDLE = TIMEOUTS["first_token_timeout_seconds"], TIMEOUTS["idle_timeout_seconds"]


@dataclass(frozen=True, slots=True)
class Row:
    """The expected outcomes of requests under a fault."""

    fault: str
    plain: str
    stream: str
    embeddings: str = ""
    """Default: as plain requests."""
    elsewhere: bool = True
    """Whether another endpoint answers instead, or resumes the stream."""
    seconds: float = QUICK
    """Upper bound of the time at one endpoint, in seconds."""

    def of(self, answer: Answer) -> str:
        """The expected outcome of an answer."""
        alone = self.outcome(answer.shape, two=False)
        if answer.model == FIXED and alone.startswith("event"):
            return alone
        return self.outcome(answer.shape, two=answer.model.endswith("-two"))

    def outcome(self, shape: Shape, *, two: bool) -> str:
        outcome = self.stream if shape.stream else self.plain
        if shape.operation == "embeddings" and self.embeddings:
            outcome = self.embeddings
        return "ok" if two and self.elsewhere else outcome


FAILED, GONE, LATE = "502 engine_error", "503 engine_unavailable", "504 engine_timeout"
FULL = "429 engine_overloaded"

TABLE = (
    # error statuses
    Row("429=2", FULL, FULL),
    Row("500", FAILED, FAILED),
    Row("502", FAILED, FAILED),
    Row("503=2", GONE, GONE),
    Row("401", FAILED, FAILED),
    Row("400", "400 None", "400 None", elsewhere=False),
    Row("400-context", "400 context_length_exceeded", "400 context_length_exceeded", elsewhere=False),
    Row("404", "404 model_not_found", "404 model_not_found", elsewhere=False),
    # no response, or a late one
    Row("refused", GONE, GONE),
    Row("slow=300ms", "ok", "ok"),
    Row("slow=1h", LATE, LATE, seconds=FIRST + QUICK),
    Row("stall", LATE, LATE, embeddings="ok", seconds=FIRST + QUICK),
    Row("stall=5", LATE, "event engine_timeout", embeddings="ok", seconds=FIRST + QUICK),
    Row("stall=5,200ms", "ok", "ok"),
    # connections that end early
    Row("cut", FAILED, FAILED),
    Row("cut=5", FAILED, "event engine_error"),
    Row("reset", FAILED, FAILED),
    Row("reset=5", FAILED, "event engine_error"),
    Row("wrong-length", FAILED, "ok"),
    # invalid responses
    Row("error", FAILED, FAILED),
    Row("error=5", FAILED, "event engine_error"),
    Row("garbage", FAILED, FAILED),
    Row("garbage=5", FAILED, "event engine_error"),
    Row("malformed", FAILED, FAILED),
    Row("huge", "ok", "ok"),
    Row("huge=5", "ok", "ok"),
    Row("huge=5,6000000", "ok", "event engine_error"),
    # wrong usage
    Row("wrong-usage=1000", "ok", "ok"),
    Row("no-usage", "ok", "ok"),
    Row("negative-usage", "ok", "ok"),
)
EACH_COMMIT = {
    *("429=2", "503=2", "400-context", "refused", "stall", "stall=5", "cut", "cut=5", "wrong-length"),
    *("error=5", "garbage=5", "malformed", "huge=5,6000000", "no-usage"),
}
"""One per kind, and those that once found a bug."""
ROWS = [pytest.param(row, marks=() if row.fault in EACH_COMMIT else pytest.mark.long, id=row.fault) for row in TABLE]


@pytest.mark.parametrize("row", ROWS)
async def test_a_fault_of_the_engine_ends_as_it_is_written(stack: Stack, fault_sink: OTLPSink, row: Row) -> None:
    key = await stack.key(f"fault {row.fault}")
    async with httpx.AsyncClient() as admin, stack.client(key) as client:
        config = {"failure-injection-rate": 100, "failure-types": [row.fault]}
        (await admin.post(stack.a.url + "/admin/config", json=config)).raise_for_status()
        answers = await _one_of_each(client, deadline=2 * row.seconds)
        await until(lambda: stack.a.running() == 0)
        (await admin.post(stack.a.url + "/admin/config", json={"failure-injection-rate": 0})).raise_for_status()
        # Several at once: a single request would avoid the endpoint that has just failed.
        after = await _one_of_each(client, deadline=10, times=3)
    for answer in answers:
        assert answer.outcome == row.of(answer), answer
        assert answer.seconds < row.seconds + (QUICK if answer.model.endswith("-two") else 0), answer
    assert {answer.outcome for answer in after} == {"ok"}, "nothing of it is left"
    await stack.all_settled()
    rows = await stack.rows(key)
    if row.fault == "negative-usage":
        for answer in answers:
            answer.usage = None  # the engine's usage is passed on to the caller, but not used
    if row.fault == "wrong-usage=1000":
        completions = [record for record in rows if record.model == "completions-stream-one"]
        assert {record.output_tokens > 1000 for record in completions} == {True, False}, "it is believed what it says"
        return
    found = ledger_check.check([*answers, *after], rows)
    assert await totals.traced(rows, fault_sink) == totals.total(rows)
    for answer in answers:
        _check_attempts(stack, answer, found[answer.tag], row)
        if found[answer.tag].resumed:
            assert len(answer.ids) == 1
            assert answer.text == await _undisturbed(stack, answer), "not a character is lost or said twice"


def _check_attempts(stack: Stack, answer: Answer, record: RequestRecord, row: Row) -> None:
    """The record lists each attempt at an endpoint with its error."""
    first = record.attempts[0]
    assert first.endpoint.endswith(stack.a.url), record
    alone = row.outcome(answer.shape, two=False)
    is_late = alone.startswith("event")
    is_alone = answer.model.endswith("-one") or (is_late and answer.model == FIXED)
    assert record.resumed == (1 if is_late and row.elsewhere and not is_alone else 0), record
    if alone == "ok" or not row.elsewhere or is_alone:
        assert len(record.attempts) == 1, record
    else:
        assert [attempt.endpoint.endswith(stack.b.url) for attempt in record.attempts] == [False, True], record
        assert record.attempts[1].error is None
    assert first.error == (None if alone == "ok" else _code(alone)), record


async def _undisturbed(stack: Stack, answer: Answer) -> str:
    """The engine's answer to the same request without a fault."""
    body = answer.shape.body(answer.model, answer.tag) | {"stream": False, "stream_options": None}
    async with httpx.AsyncClient(base_url=stack.b.url, trust_env=False) as engine:
        choice = (await engine.post(PATHS[answer.shape.operation], json=body)).json()["choices"][0]
    return str(choice["message"]["content"] if "message" in choice else choice["text"])


def _code(outcome: str) -> str:
    code = outcome.split()[1]
    return "invalid_request_error" if code == "None" else code


async def _one_of_each(client: httpx.AsyncClient, *, deadline: float, times: int = 1) -> list[Answer]:
    """Send every shape with one and with two endpoints concurrently. Each has its own model, so that failures of the
    others have no effect."""
    counts = ("one", "two")
    asked: list[tuple[Shape, str, dict[str, Any]]] = [(s, f"{s.name}-{count}", {}) for s in SHAPES for count in counts]
    asked.append((Shape("chat", stream=True), FIXED, {"presence_penalty": 0.5}))
    return await asyncio.gather(
        *(
            ask(client, shape, model, deadline=deadline, **fields)
            for shape, model, fields in asked
            for _ in range(times)
        )
    )
