"""Usage counts, correct or changed by a fault."""

from typing import Any

from quarterdeck.simulator.faults import Faults


def usage_of(prompt: int, completion: int, cached: int | None, faults: Faults) -> dict[str, Any] | None:
    """Return vLLM's usage object, keys in vLLM's order; None where a fault omits it."""
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
    """Drop nulls, as in the last chunk of vLLM's stream (`exclude_none`)."""
    kept = {key: value for key, value in usage.items() if value is not None}
    if details := kept.get("prompt_tokens_details"):
        kept["prompt_tokens_details"] = {key: value for key, value in details.items() if value is not None}
    return kept
