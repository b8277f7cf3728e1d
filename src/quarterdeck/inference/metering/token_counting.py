"""Token counts of answers without usage: the client disconnected, or the stream was lost.

The endpoint's tokenizer counts the received text. If it is unavailable, tokens are estimated from the text's length.
The record's `usage_source` says which.
"""

import asyncio
from collections.abc import Mapping

import msgspec

from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.inference.engine.client import EngineClient
from quarterdeck.inference.metering.meter import Meter, estimate_tokens
from quarterdeck.protocol.usage import Usage

PROMPT_FIELDS = ("messages", "tools", "add_generation_prompt", "continue_final_message", "chat_template_kwargs")
"""The fields of a chat request that shape its prompt."""
COUNT_SECONDS = 5.0
"""Limit for all `/tokenize` calls of one request. After that its tokens are estimated: the engine may be down."""
MAX_PROMPTS = 16
"""Requests with more prompts are estimated."""


async def count_received_tokens(
    engines: EngineClient, endpoint: Endpoint, meter: Meter, body: bytes, *, seconds: float = COUNT_SECONDS
) -> None:
    """Set the meter's usage: the tokens of the request `body` and of the received text, counted within `seconds` or
    else estimated."""
    text = meter.transcript.text() if meter.transcript else ""
    prompt = output = None
    try:
        async with asyncio.timeout(seconds):
            prompt = await _prompt(engines, endpoint, meter.served.name, body)
            if text is not None and prompt is not None:
                output = await _output(engines, endpoint, meter.served.name, text)
    except TimeoutError:
        pass  # estimated below
    if prompt is not None and output is not None:
        meter.usage, meter.usage_source = Usage(prompt, 0, output, 0), "counted"
        return
    estimate_received_tokens(meter, body, prompt=prompt)


def estimate_received_tokens(meter: Meter, body: bytes, *, prompt: int | None = None) -> None:
    """Set the meter's usage to an estimate. `prompt` is the prompt's token count, if known."""
    output = 0
    if (transcript := meter.transcript) is not None:
        text = transcript.text()
        output = transcript.tokens_seen() if text is None else estimate_tokens(len(text))
    meter.usage = Usage(estimate_tokens(len(body)) if prompt is None else prompt, 0, output, 0)
    meter.usage_source = "estimated"


async def _output(engines: EngineClient, endpoint: Endpoint, name: str, text: str) -> int | None:
    if not text:
        return 0
    return await _count(engines, endpoint, name, {"prompt": text, "add_special_tokens": False})


async def _prompt(engines: EngineClient, endpoint: Endpoint, name: str, body: bytes) -> int | None:
    request = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    if "messages" in request:
        fields = {field: request[field] for field in PROMPT_FIELDS if field in request}
        return await _count(engines, endpoint, name, fields)
    raw = request.get("prompt", request.get("input"))
    prompts = msgspec.json.decode(raw) if raw is not None else None
    if isinstance(prompts, str):
        return await _count(engines, endpoint, name, {"prompt": prompts})
    if not isinstance(prompts, list):
        return None
    if all(isinstance(item, int) for item in prompts):
        return len(prompts)
    if len(prompts) > MAX_PROMPTS or not all(isinstance(item, str | list) for item in prompts):
        return None
    total = 0
    for item in prompts:
        if isinstance(item, list):
            count: int | None = len(item)
        else:
            count = await _count(engines, endpoint, name, {"prompt": item})
        if count is None:
            return None
        total += count
    return total


async def _count(engines: EngineClient, endpoint: Endpoint, name: str, fields: Mapping[str, object]) -> int | None:
    return await engines.count(endpoint, {"model": endpoint.spec.name_of(name) or name, **fields})
