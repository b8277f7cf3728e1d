"""Fake metrics: fixed values or functions of time instead of real values, for tests of autoscalers.

The names are llm-d-inference-sim's: `oscillate:0:10:5s`, `ramp:10:0:5s`, `rampreset:…`, `squarewave:…`.
"""

import math
from collections.abc import Mapping
from typing import Any

from quarterdeck.simulator.options import seconds

GAUGES = ("running-requests", "waiting-requests", "kv-cache-usage")

HISTOGRAMS = {
    "ttft-buckets-values": "vllm:time_to_first_token_seconds",
    "tpot-buckets-values": "vllm:inter_token_latency_seconds",
    "e2erl-buckets-values": "vllm:e2e_request_latency_seconds",
    "queue-time-buckets-values": "vllm:request_queue_time_seconds",
    "inf-time-buckets-values": "vllm:request_inference_time_seconds",
    "prefill-time-buckets-values": "vllm:request_prefill_time_seconds",
    "decode-time-buckets-values": "vllm:request_decode_time_seconds",
    "request-prompt-tokens": "vllm:request_prompt_tokens",
    "request-generation-tokens": "vllm:request_generation_tokens",
    "request-max-generation-tokens": "vllm:request_max_num_generation_tokens",
    "request-params-max-tokens": "vllm:request_params_max_tokens",
}

COUNTERS = {
    "total-prompt-tokens": "vllm:prompt_tokens",
    "total-generation-tokens": "vllm:generation_tokens",
    "prefix-cache-hits": "vllm:prefix_cache_hits",
    "prefix-cache-queries": "vllm:prefix_cache_queries",
}

SUCCESS = "request-success-total"
LORAS = "loras"


def validate(fakes: Mapping[str, Any]) -> None:
    """Raise ValueError for an unknown metric or function."""
    for name, value in fakes.items():
        if name in GAUGES:
            value_at(value, 0.0)
        elif name in COUNTERS:
            float(value)
        elif name in HISTOGRAMS:
            [float(each) for each in value]
        elif name == SUCCESS:
            [float(each) for each in value.values()]
        elif name != LORAS:
            raise ValueError(f"fake-metrics: unknown metric '{name}'")


def value_at(value: Any, elapsed: float) -> float:
    """Return the gauge's value `elapsed` seconds after the start. Raises ValueError."""
    if isinstance(value, int | float):
        return float(value)
    try:
        kind, first, last, period = str(value).split(":")
        start, end, span = float(first), float(last), seconds(period)
    except ValueError as error:
        raise ValueError(f"fake-metrics: '{value}' is neither a number nor function:start:end:period") from error
    if span <= 0:
        raise ValueError("fake-metrics: the period must be longer than 0")
    share = elapsed % span / span
    if kind == "oscillate":
        return start + (end - start) * (1 - math.cos(2 * math.pi * share)) / 2
    if kind == "ramp":
        return start + (end - start) * min(elapsed / span, 1.0)
    if kind == "rampreset":
        return start + (end - start) * share
    if kind == "squarewave":
        return start if share < 0.5 else end
    raise ValueError(f"fake-metrics: unknown function '{kind}'")
