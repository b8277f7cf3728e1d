"""Counts tokens where the engine did not get to say them: a caller hung up, a stream broke off.

By the endpoint's own tokenizer over the text that was received; where it can't be asked, by bytes. The record says
which (`usage_source`).
"""

from typing import Any

import msgspec

from quarterdeck.inference.endpoints import Endpoint
from quarterdeck.inference.engine_client import EngineClient
from quarterdeck.inference.metering import Meter, estimated
from quarterdeck.protocol.usage import Usage

PROMPT_FIELDS = ("messages", "tools", "add_generation_prompt", "continue_final_message", "chat_template_kwargs")
"""What of a chat request shapes its prompt."""


async def count_what_was_received(engines: EngineClient, endpoint: Endpoint, meter: Meter, body: bytes) -> None:
    """Set the meter's usage to prompt and text, counted or estimated."""
    asked: dict[str, Any] = msgspec.json.decode(body)
    name = meter.served.name
    text = meter.transcript.text() if meter.transcript else ""
    output = None
    if text is not None:
        output = (
            await _count(engines, endpoint, {"model": name, "prompt": text, "add_special_tokens": False}) if text else 0
        )
    prompt = await _prompt(engines, endpoint, name, asked)
    if prompt is not None and output is not None:
        meter.usage, meter.usage_source = Usage(prompt, 0, output, 0), "counted"
        return
    if output is None:
        output = estimated(len(text)) if text is not None else (meter.transcript.events if meter.transcript else 0)
    meter.usage = Usage(estimated(len(body)) if prompt is None else prompt, 0, output, 0)
    meter.usage_source = "estimated"


async def _prompt(engines: EngineClient, endpoint: Endpoint, name: str, asked: dict[str, Any]) -> int | None:
    if "messages" in asked:
        fields = {field: asked[field] for field in PROMPT_FIELDS if field in asked}
        return await _count(engines, endpoint, {"model": name, **fields})
    prompt = asked.get("prompt", asked.get("input"))
    if isinstance(prompt, str):
        return await _count(engines, endpoint, {"model": name, "prompt": prompt})
    if not isinstance(prompt, list):
        return None
    if all(isinstance(item, int) for item in prompt):
        return len(prompt)
    total = 0
    for item in prompt:
        count = (
            len(item) if isinstance(item, list) else await _count(engines, endpoint, {"model": name, "prompt": item})
        )
        if count is None:
            return None
        total += count
    return total


async def _count(engines: EngineClient, endpoint: Endpoint, body: dict[str, object]) -> int | None:
    return await engines.count(endpoint, body)
