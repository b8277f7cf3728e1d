"""Contents are exported redacted, and one that is deleted while it waits for a sink is not exported."""

import json

from tests.records import a_record
from tests.telemetry.otlp_sink import OTLPSink
from tests.worker.bench import ORG, SINK, Bench, eventually, is_empty, running

from quarterdeck.accounting import commit
from quarterdeck.accounting.scopes import ScopeSet
from quarterdeck.content import Content, encode
from quarterdeck.record import RequestRecord
from quarterdeck.redaction.redactor import Redactor
from quarterdeck.store.contents import ContentStore
from quarterdeck.worker import trace_making
from quarterdeck.worker.contents import ContentIntake
from quarterdeck.worker.ledger_loop import LedgerLoop
from quarterdeck.worker.trace_deletion import delete_waiting_traces

SECRET = "sk-qd-" + "a1B2" * 10


async def settle(bench: Bench, text: str = "Hi", **changes: object) -> RequestRecord:
    record = a_record(**({"content": "full", "started": 1.0} | changes))
    asked = {"messages": [{"role": "user", "content": f"{text} {SECRET}"}]}
    await commit.settle(
        bench.redis, record, ScopeSet(ORG), encode(Content(level="full", input=json.dumps(asked).encode()))
    )
    return record


def a_loop(bench: Bench) -> LedgerLoop:
    loop = bench.ledger_loop(sinks=[SINK])
    redactor = Redactor()
    loop._contents = ContentIntake(bench.redis, ContentStore(bench.database), lambda: redactor, bench.metrics)
    return loop


def inputs(sink: OTLPSink) -> list[str]:
    found = [span.attributes.get("langfuse.observation.input") for span in sink.spans]
    return [str(each) for each in found if each]


async def test_content_reaches_the_sink_redacted_beside_traces_without(bench: Bench, sink: OTLPSink) -> None:
    await settle(bench, "first")
    await bench.append(a_record())
    async with running(a_loop(bench)):
        await eventually(lambda: is_empty(bench))
    assert await bench.waiting_traces() == 2
    async with running(bench.sink_loop(sink)):
        await eventually(lambda: has_none_waiting(bench))
    assert inputs(sink) == ['[{"role":"user","content":"first [api_key]"}]']
    assert {span.trace_id for span in sink.spans if span.attributes.get("langfuse.observation.input") is None}


async def has_none_waiting(bench: Bench) -> bool:
    return await bench.waiting_traces() == 0


async def test_what_is_deleted_while_the_sink_is_away_is_not_exported(bench: Bench, sink: OTLPSink) -> None:
    gone = [await settle(bench, "gone", user="u") for _ in range(3)]
    await settle(bench, "kept", user="v")
    await bench.append(a_record(user="u", started=1.0))  # without content
    async with running(a_loop(bench)):
        await eventually(lambda: is_empty(bench))
    deletion, count = await ContentStore(bench.database).delete("user", "u", org=ORG, key="key_1")
    assert count == len(gone)
    assert await delete_waiting_traces(bench.redis, ORG, SINK, [deletion]) == 3
    assert await delete_waiting_traces(bench.redis, ORG, SINK, [deletion]) == 0
    assert await bench.waiting_traces() == 2
    async with running(bench.sink_loop(sink)):
        await eventually(lambda: has_none_waiting(bench))
    assert inputs(sink) == ['[{"role":"user","content":"kept [api_key]"}]']
    assert await bench.redis.call("HGETALL", f"traces:{{{ORG}}}:{SINK}:size") in (
        [b"traces", b"0", b"bytes", b"0"],
        [b"bytes", b"0", b"traces", b"0"],
    )


async def test_a_batch_with_nothing_left_is_removed(bench: Bench) -> None:
    await settle(bench, session="s")
    async with running(a_loop(bench)):
        await eventually(lambda: is_empty(bench))
    deletion, _ = await ContentStore(bench.database).delete("session", "s", org=ORG, key="key_1")
    assert await delete_waiting_traces(bench.redis, ORG, SINK, [deletion]) == 1
    assert await bench.waiting_traces() == 0


def test_traces_with_contents_are_in_batches_of_bounded_size() -> None:
    about = ("req_1", None, None, 1.0)
    traces = [(b"x" * (trace_making.CONTENT_BYTES // 3), about)] * 10
    batches = list(trace_making._packed(traces))
    assert [batch.traces for batch in batches] == [3, 3, 3, 1]
    assert all(len(json.loads(batch.about)) == batch.traces for batch in batches)
    assert [batch.traces for batch in trace_making._packed([(b"x" * 3 * trace_making.CONTENT_BYTES, about)] * 2)] == [
        1,
        1,
    ]
