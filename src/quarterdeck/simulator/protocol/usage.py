"""Usage counts, right or wrong on demand."""

from typing import Any

from quarterdeck.simulator.faults import Faults

FAULTS = ("wrong-usage", "no-usage", "negative-usage")


def parse_usage(prompt: int, completion: int, cached: int | None, faults: Faults) -> dict[str, Any] | None:
    """vLLM's usage object, its keys in vLLM's order; None where a fault leaves it out."""
    if "no-usage" in faults:
        return None
    if "negative-usage" in faults:
        prompt, completion = -prompt - 1, -completion - 1
    elif fault := faults.get("wrong-usage"):
        off = 1000 if fault.value is None else int(fault.value)
        prompt, completion = prompt + off, completion + off
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "completion_tokens": completion,
        "prompt_tokens_details": None
        if cached is None
        else {"cached_tokens": cached, "created_cache_tokens": None, "multimodal_tokens": None},
        "completion_tokens_details": None,
    }


def without_none(usage: dict[str, Any]) -> dict[str, Any]:
    """As a stream's last chunk has it (`exclude_none`)."""
    kept = {key: value for key, value in usage.items() if value is not None}
    if details := kept.get("prompt_tokens_details"):
        kept["prompt_tokens_details"] = {key: value for key, value in details.items() if value is not None}
    return kept
