"""Token counts of other servers: where they are in an answer, and with which names. Pure.

What can't be read as counts is removed, and the record's are estimated then: a client's types would refuse it.
"""

from typing import Any

from quarterdeck.protocol.usage import parse_usage

_OTHER_NAMES = {
    "prompt_tokens": ("promptTokens", "inputTokens", "prompt_eval_count"),
    "completion_tokens": ("completionTokens", "outputTokens", "eval_count"),
    "total_tokens": ("totalTokens",),
}
_COUNTS = (*_OTHER_NAMES, "input_tokens", "output_tokens")


def take_usage(chunk: dict[str, Any]) -> dict[str, Any] | None:
    """Remove the usage from a chunk or an answer, wherever it is, and return it with OpenAI's names. None: there is
    none that can be used."""
    usage = chunk.pop("usage", None)
    if isinstance(groq := chunk.get("x_groq"), dict) and isinstance(groq.get("usage"), dict):
        chunk["x_groq"] = {name: value for name, value in groq.items() if name != "usage"}
        usage = usage or groq["usage"]
    if isinstance(choices := chunk.get("choices"), list):  # Moonshot's
        for choice in choices:
            if isinstance(choice, dict) and "usage" in choice:
                usage = usage or choice["usage"]
                del choice["usage"]
    return mend_usage(usage)


def mend_usage(found: Any, *, is_embedding: bool = False) -> dict[str, Any] | None:
    """The usage with its counts as integers and none missing. None: it can't be used."""
    if not isinstance(found, dict) or not found:
        return None
    usage = dict(found)
    for name, others in _OTHER_NAMES.items():
        for other in others:
            if name not in usage and other in usage:
                usage[name] = usage[other]
    for name in _COUNTS:
        if name in usage and type(usage[name]) is not int:
            if (count := _integer(usage.pop(name))) is not None:
                usage[name] = count
            elif name != "total_tokens" and found.get(name) is not None:
                return None
    counts = parse_usage(usage)
    if counts is None:
        return None
    usage.setdefault("prompt_tokens", counts.input)
    if not is_embedding:
        usage.setdefault("completion_tokens", counts.output)
    usage.setdefault("total_tokens", counts.input + counts.output)
    return usage


def _integer(value: Any) -> int | None:
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 12:
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else None
