"""The tokens to reserve for a request before it runs. Pure."""

import msgspec

from quarterdeck.inference.metering.meter import estimate_tokens
from quarterdeck.inference.request import InferenceRequest
from quarterdeck.protocol.requests import ChatCompletionRequest, GenerationRequest

DEFAULT_OUTPUT_TOKENS = 256
"""Output reserved for a request without max_tokens; settled at what it used."""
MAX_ESTIMATE = 10**9
"""Tokens. Far above any answer; Redis' Lua counts in doubles, which are exact below 2⁵³."""


class Estimate(msgspec.Struct, frozen=True, gc=False):
    """Tokens that a request is expected to need at most."""

    prompt: int
    output: int
    total: int
    """Prompt and output."""


def estimate(request: InferenceRequest) -> Estimate:
    """The prompt by the body's size, the output by its limit and the number of choices."""
    prompt = min(estimate_tokens(len(request.body)), MAX_ESTIMATE)
    parsed = request.parsed
    if not isinstance(parsed, GenerationRequest):
        return Estimate(prompt, 0, prompt)
    most = parsed.max_tokens or DEFAULT_OUTPUT_TOKENS
    if isinstance(parsed, ChatCompletionRequest):
        most = parsed.max_completion_tokens or most
    output = min(most * (parsed.n or 1), MAX_ESTIMATE - prompt)
    return Estimate(prompt, output, prompt + output)
