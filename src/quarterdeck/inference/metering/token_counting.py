"""Counts tokens where the engine did not get to say them: a caller hung up, a stream broke off.

By the endpoint's own tokenizer over the text that was received; where it can't be asked, by bytes. The record says
which (`usage_source`).
"""

import asyncio
from collections.abc import Mapping

import msgspec

from quarterdeck.inference.endpoints.sources import Endpoint
from quarterdeck.inference.engine.client import EngineClient
from quarterdeck.inference.metering.meter import Meter, estimated
from quarterdeck.protocol.usage import Usage

PROMPT_FIELDS = ("messages", "tools", "add_generation_prompt", "continue_final_message", "chat_template_kwargs")
"""What of a chat request shapes its prompt."""
COUNT_SECONDS = 5.0
"""For all questions together. An engine that was lost is not waited for: a guess in time is worth more."""
MAX_PROMPTS = 16
"""A request with more prompts is estimated rather than counted one by one."""


async def count_what_was_received(engines: EngineClient, endpoint: Endpoint, meter: Meter, body: bytes) -> None:
    """Set the meter's usage to prompt and text, counted or estimated."""
    text = meter.transcript.text() if meter.transcript else ""
    prompt = output = None
    try:
        async with asyncio.timeout(COUNT_SECONDS):
            prompt = await _prompt(engines, endpoint, meter.served.name, body)
            if text is not None and prompt is not None:
                output = await _output(engines, endpoint, meter.served.name, text)
    except TimeoutError:
        pass  # what was not counted by now is estimated
    if prompt is not None and output is not None:
        meter.usage, meter.usage_source = Usage(prompt, 0, output, 0), "counted"
        return
    estimate_what_was_received(meter, body, prompt=prompt)


def estimate_what_was_received(meter: Meter, body: bytes, *, prompt: int | None = None) -> None:
    """The same by a rule of thumb; `prompt` was counted all the same, if it is given."""
    text = meter.transcript.text() if meter.transcript else ""
    output = estimated(len(text)) if text is not None else (meter.transcript.tokens_seen() if meter.transcript else 0)
    meter.usage = Usage(estimated(len(body)) if prompt is None else prompt, 0, output, 0)
    meter.usage_source = "estimated"


async def _output(engines: EngineClient, endpoint: Endpoint, name: str, text: str) -> int | None:
    if not text:
        return 0
    return await _count(engines, endpoint, name, {"prompt": text, "add_special_tokens": False})


async def _prompt(engines: EngineClient, endpoint: Endpoint, name: str, body: bytes) -> int | None:
    asked = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    if "messages" in asked:
        fields = {field: asked[field] for field in PROMPT_FIELDS if field in asked}
        return await _count(engines, endpoint, name, fields)
    raw = asked.get("prompt", asked.get("input"))
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


async def _count(engines: EngineClient, endpoint: Endpoint, name: str, what: Mapping[str, object]) -> int | None:
    return await engines.count(endpoint, {"model": endpoint.upstream_model or name, **what})
