"""`quarterdeck up --traces phoenix`: a real trace backend beside the platform, read back through its own API.

Arize Phoenix is not in this project's environments but in one of its own (`make env-phoenix`), which takes minutes to
make and half a minute to start.
"""

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from tests.cli.running import Running, free_ports, running
from tests.phoenix import Phoenix
from tests.records import a_record

from quarterdeck.record import Attempt, CallerTrace, RequestRecord
from quarterdeck.telemetry.traces.batches import pack
from quarterdeck.telemetry.traces.exporter import OTLPExporter, Outcome
from quarterdeck.telemetry.traces.projection import TraceProjection

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

MODEL = "smollm2-135m-instruct"


@contextmanager
def up(folder: Path) -> Iterator[tuple[Running, dict[str, str]]]:
    mine = {n: v for n, v in os.environ.items() if not n.startswith(("QUARTERDECK_", "OTEL_", "PHOENIX_", "LANGFUSE_"))}
    ports = ("QUARTERDECK_PORT", "QUARTERDECK_WORKER_PORT", "QUARTERDECK_ENGINE_PORT", "PHOENIX_PORT")
    mine |= dict(zip(ports, map(str, free_ports(4)), strict=True)) | {"QUARTERDECK_STATE": str(folder)}
    command = [sys.executable, "-m", "quarterdeck.cli", "up", "--engine", "sim", "--traces", "phoenix"]
    with running(command, mine, patience=300) as program:
        yield program, mine


def until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Poll what another process's API shows."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not so in time"
        time.sleep(0.5)


def test_requests_are_traces_in_phoenix_and_it_ends_with_the_platform(tmp_path_factory: pytest.TempPathFactory) -> None:
    with up(tmp_path_factory.mktemp("traced")) as (program, environ), httpx.Client(timeout=30) as http:
        while "traces at" not in program.output or "Press Ctrl-C to stop" not in program.output:
            program.until("")
        found = re.search(r"traces at (http://\S+)", program.output), re.search(r"sk-qd-[\w-]+", program.output)
        assert found[0] is not None
        assert found[1] is not None
        url, key = found[0][1], found[1][0]
        phoenix = Phoenix(url, http)
        base_url = f"http://127.0.0.1:{environ['QUARTERDECK_PORT']}/v1"
        with openai.OpenAI(base_url=base_url, api_key=key) as client:
            for number in range(5):
                stream = client.chat.completions.create(
                    model=MODEL,
                    messages=[{"role": "user", "content": f"Hello {number}"}],
                    stream=True,
                    stream_options={"include_usage": True},
                    max_tokens=8,
                    user="ann",
                    metadata={"session_id": "s-1"},
                )
                usage = [chunk.usage for chunk in stream if chunk.usage is not None]
        assert usage[0] is not None
        until(lambda: phoenix.project().get("traceCount") == 5)
        spans = phoenix.spans()
        calls = [span for span in spans if span["spanKind"] == "llm"]
        assert {span["name"] for span in calls} == {f"chat {MODEL}"}
        assert calls[-1]["tokenCountTotal"] == usage[0].total_tokens
        check_tree(spans, ["POST /v1/chat/completions", "admission", f"chat {MODEL}", "attempt "])
        records_of_phoenix(phoenix)
        assert program.interrupt() == 0
        with pytest.raises(httpx.TransportError):
            httpx.get(url)


def check_tree(spans: list[dict[str, Any]], names: list[str]) -> None:
    by_trace: dict[str, list[dict[str, Any]]] = {}
    for span in spans:
        by_trace.setdefault(span["trace"]["traceId"], []).append(span)
    for those in by_trace.values():
        ids = {span["spanId"]: span for span in those}
        roots = [span for span in those if span["parentId"] is None]
        assert [root["name"] for root in roots] == [names[0]]
        assert all(span["parentId"] in ids for span in those if span not in roots)
        for name in names:
            assert any(span["name"].startswith(name) for span in those), name
        attempts = [span for span in those if span["name"].startswith("attempt ")]
        assert {ids[span["parentId"]]["spanKind"] for span in attempts} == {"llm"}


def records_of_phoenix(phoenix: Phoenix) -> None:
    """Records of many kinds: its tokens and its own prices add up to the ledger's."""
    new = {"model": "priced", "reasoning_tokens": 0}
    kinds: list[dict[str, Any]] = [
        {},
        {"stream": False},
        {"cached_tokens": 0, "cost": Decimal("0.0000111")},
        {"operation": "completions"},
        {"status": "error", "http_status": 502, "error_code": "engine_error"},
        {"status": "cancelled", "http_status": 200, "usage_source": "counted"},
        {"trace": CallerTrace(id="ab" * 16, parent="cd" * 8, name="support", tags=("t",), metadata={"a": "b"})},
        {"prompt": "greeting", "prompt_version": "3", "prompt_label": "production"},
        {"attempts": (Attempt("m#0", 1.8e9, 1.8e9 + 1, 503, "overloaded", "priced"),)},
        {"cache": "miss", "admitted": 1.8e9 + 0.2, "recalled": 1.8e9 + 0.3, "queued": 1.8e9 + 0.3},
    ]
    records = [a_record(**(new | kind)) for kind in kinds for _ in range(5)]
    phoenix.price(records[0])
    exporter = OTLPExporter(f"{phoenix.url}/v1/traces", headers={}, service_name="quarterdeck", environment="test")
    encode = TraceProjection("test").encode
    # It reads its table of models again every few seconds.
    until(lambda: _is_priced(phoenix, exporter, encode))
    assert exporter.export([pack([encode(record) for record in records])]) == Outcome(len(records))
    assert exporter.export([pack([encode(records[0])])]) == Outcome(1)  # delivered twice
    exporter.close()
    exporter.disconnect()
    wanted = {record.trace_id for record in records}
    until(lambda: wanted <= {span["trace"]["traceId"] for span in phoenix.spans() if span["spanKind"] == "llm"})
    calls = [span for span in phoenix.spans() if span["spanKind"] == "llm" and span["trace"]["traceId"] in wanted]
    assert len(calls) == len(records)
    assert sum(span["tokenCountTotal"] for span in calls) == sum(r.input_tokens + r.output_tokens for r in records)
    until(lambda: all(span["costSummary"]["total"]["cost"] is not None for span in phoenix.spans() if span in calls))
    spent = sum(span["costSummary"]["total"]["cost"] for span in calls)
    assert spent == pytest.approx(float(sum((record.cost for record in records), Decimal(0))), rel=1e-9)
    errors = [span for span in calls if span["statusCode"] == "ERROR"]
    assert len(errors) == sum(record.status == "error" for record in records)


def _is_priced(phoenix: Phoenix, exporter: OTLPExporter, encode: Callable[[RequestRecord], bytes]) -> bool:
    probe = a_record(model="priced", reasoning_tokens=0)
    exporter.export([pack([encode(probe)])])
    until(lambda: any(span["trace"]["traceId"] == probe.trace_id for span in phoenix.spans()))
    calls = [span for span in phoenix.spans() if span["trace"]["traceId"] == probe.trace_id]
    call = next(span for span in calls if span["spanKind"] == "llm")
    return call["costSummary"] is not None and call["costSummary"]["total"]["cost"] is not None
