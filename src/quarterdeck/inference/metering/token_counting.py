"""Token counts of answers without usage: the client disconnected, or the stream was lost.

The endpoint's tokenizer counts the received text. If it is unavailable, tokens are estimated from the text's length.
The record's `usage_source` says which.
"""

import asyncio
from collections.abc import Mapping

import msgspec

from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.inference.engine.client import EngineClient
from quarterdeck.inference.estimation import estimate_tokens
from quarterdeck.inference.metering.meter import Meter
from quarterdeck.inference.request import InferenceRequest
from quarterdeck.protocol.requests import ChatCompletionRequest, CompletionRequest, EmbeddingRequest

PROMPT_FIELDS = ("messages", "tools", "add_generation_prompt", "continue_final_message", "chat_template_kwargs")
"""The fields of a chat request that shape its prompt."""
COUNT_SECONDS = 5.0
"""Limit for all `/tokenize` calls of one request. After that its tokens are estimated: the engine may be down."""
PROMPT_SECONDS = 2.0
"""Limit for counting a prompt before its request is admitted: the client waits for it."""
MAX_PROMPTS = 16
"""Requests with more prompts are estimated."""


PROMPT_MEMBERS = frozenset(
    {
        *("messages", "prompt", "input", "model", "stream", "stream_options", "n", "best_of", "max_tokens"),
        *("max_completion_tokens", "min_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop", "tools"),
        *("tool_choice", "parallel_tool_calls", "response_format", "logprobs", "top_logprobs", "user", "metadata"),
        *("ignore_eos", "stop_token_ids", "repetition_penalty", "length_penalty", "bad_words", "allowed_token_ids"),
        *("skip_special_tokens", "spaces_between_special_tokens", "include_stop_str_in_output", "use_beam_search"),
        *("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar"),
        *("service_tier", "prompt_cache_key", "prompt_cache_retention", "cache_salt", "request_id", "return_token_ids"),
        *("safety_identifier", "frequency_penalty", "presence_penalty", "logit_bias", "store", "cache", "echo"),
        *("add_generation_prompt", "continue_final_message", "chat_template_kwargs", "encoding_format", "dimensions"),
    }
)
"""The members of a request whose prompt `/tokenize` counts as the request itself would. Others might add to it."""


def can_be_counted(request: InferenceRequest) -> bool:
    """Whether the tokenizer's count is the whole prompt: it is not where there are pictures, whose tokens only the
    model adds."""
    parsed = request.parsed
    if isinstance(parsed, ChatCompletionRequest):
        has_parts = any(
            isinstance(message.content, list) and any(part.get("type") != "text" for part in message.content)
            for message in parsed.messages
        )
        return not has_parts and request.members.keys() <= PROMPT_MEMBERS
    return isinstance(parsed, CompletionRequest | EmbeddingRequest) and request.members.keys() <= PROMPT_MEMBERS


async def count_prompt(
    engines: EngineClient, endpoint: Endpoint, name: str, body: bytes, *, seconds: float = PROMPT_SECONDS
) -> int | None:
    """The tokens of the request's prompt. None: the endpoint could not count them within `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            return await _prompt(engines, endpoint, name, body)
    except TimeoutError:
        return None


async def count_received_tokens(
    engines: EngineClient, endpoint: Endpoint, meter: Meter, body: bytes, *, seconds: float = COUNT_SECONDS
) -> None:
    """Set the meter's usage: the tokens of the request `body` and of the received text, counted within `seconds` or
    else estimated."""
    text = meter.transcript.text() if meter.transcript else ""
    listed = meter.transcript.tokens_listed() if meter.transcript else 0
    prompt = output = None
    try:
        async with asyncio.timeout(seconds):
            prompt = await _prompt(engines, endpoint, meter.served.name, body)
            if text is not None and prompt is not None:
                output = await _output(engines, endpoint, meter.served.name, text)
    except TimeoutError:
        pass  # estimated below
    if prompt is not None and output is not None:
        output = _without_echo(meter, max(output, listed), prompt)
        meter.usage, meter.usage_source = meter.bounded(prompt, output), "counted"
        return
    estimate_received_tokens(meter, prompt=prompt)


def estimate_received_tokens(meter: Meter, *, prompt: int | None = None) -> None:
    """Set the meter's usage to an estimate. `prompt` is the prompt's token count, if known."""
    output = 0
    if (transcript := meter.transcript) is not None:
        text = transcript.text()
        output = transcript.tokens_seen() if text is None else estimate_tokens(len(text))
        output = max(output, transcript.tokens_listed())
    prompt = meter.likely_prompt if prompt is None else prompt
    meter.usage = meter.bounded(prompt, _without_echo(meter, output, prompt))
    meter.usage_source = "estimated"


def _without_echo(meter: Meter, output: int, prompt: int) -> int:
    """The generated tokens of an answer that begins with its prompt."""
    has_echo = isinstance(meter.request, CompletionRequest) and meter.request.echo
    return max(0, output - prompt) if has_echo else output


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
