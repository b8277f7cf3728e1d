"""Requests of the OpenAI SDK as traces: through the gateway, Redis and the worker to a strict sink."""

import asyncio
from decimal import Decimal
from functools import partial

import openai
import pytest
from tests.faults.stack import Stack
from tests.telemetry.otlp_sink import OTLPSink, ReceivedSpan

pytestmark = pytest.mark.faults

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


async def spans_of(sink: OTLPSink, trace: str) -> list[ReceivedSpan]:
    await asyncio.to_thread(sink.wait_for, lambda s: trace in s.observations, 30)
    return [span for span in sink.spans if span.trace_id == trace]


async def test_the_callers_trace_user_session_and_tags_are_on_every_span(stack: Stack, fault_sink: OTLPSink) -> None:
    key = await stack.key("traces")
    async with openai.AsyncOpenAI(base_url=f"{stack.gateway.url}/v1", api_key=key.secret) as client:
        stream = await client.chat.completions.create(
            model="mixed-two",
            messages=[{"role": "user", "content": "Hello"}],
            stream=True,
            max_tokens=8,
            metadata={
                "langfuse_session_id": "session-1",
                "langfuse_user_id": "user-1",
                "langfuse_tags": "beta,web",
                "langfuse_trace_name": "support",
                "customer": "acme",
            },
            extra_headers={"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"},
        )
        async for _ in stream:
            pass
    await stack.all_settled()
    spans = await spans_of(fault_sink, TRACE)
    names = [span.name for span in spans]
    assert names[:2] == ["POST /v1/chat/completions", "admission"]
    assert names[2] == "chat mixed-two"
    assert names[3].startswith("attempt ")
    assert spans[0].parent_id == PARENT
    for span in spans:
        row = span.observation
        assert (row.user_id, row.session_id, row.trace_name) == ("user-1", "session-1", "support")
        assert row.tags[-2:] == ["beta", "web"]
        assert row.metadata["customer"] == "acme"
        assert span.trace_state == "vendor=1"
    (record,) = await stack.rows(key)
    call = spans[2].observation
    assert (call.type, call.total_cost) == ("GENERATION", record.cost)
    assert call.total_usage == record.input_tokens + record.output_tokens > 0
    assert call.completion_start_time is not None
    assert (record.user, record.session) == ("user-1", "session-1")


async def test_a_malformed_traceparent_is_ignored(stack: Stack, fault_sink: OTLPSink) -> None:
    key = await stack.key("malformed-trace")
    async with openai.AsyncOpenAI(base_url=f"{stack.gateway.url}/v1", api_key=key.secret) as client:
        await client.embeddings.create(model="embed-two", input="x", extra_headers={"traceparent": f"00-{TRACE}-01"})
    await stack.all_settled()
    (record,) = await stack.rows(key)
    root, *_ = await spans_of(fault_sink, record.trace_id)
    assert record.trace_id == record.id.removeprefix("req_") != TRACE
    assert root.parent_id is None


async def test_a_retry_is_a_span_with_its_error(stack: Stack, fault_sink: OTLPSink) -> None:
    key = await stack.key("retried-trace")
    await stack.fault(stack.a, "500")
    await stack.fault(stack.b, "slow=100ms")
    async with openai.AsyncOpenAI(base_url=f"{stack.gateway.url}/v1", api_key=key.secret, max_retries=0) as client:
        messages: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
        ask = partial(client.chat.completions.create, model="mixed-two", messages=messages, max_tokens=4)
        await asyncio.gather(*[ask() for _ in range(8)])  # some of them go to engine a
    await stack.all_settled()
    (record,) = [row for row in await stack.rows(key) if len(row.attempts) > 1]
    spans = await spans_of(fault_sink, record.trace_id)
    attempts = [span.observation for span in spans if span.name.startswith("attempt ")]
    assert [(row.metadata["attempt"], row.level) for row in attempts] == [("first", "ERROR"), ("retry", "DEFAULT")]
    assert sum((span.observation.total_cost for span in spans), Decimal(0)) == record.cost
