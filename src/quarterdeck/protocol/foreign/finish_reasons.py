"""Other servers' words for why an answer ended, and OpenAI's. Pure.

Words are compared by their letters: `MAX_TOKENS`, `maxTokens` and `FINISH_REASON_MAX_TOKENS` are one. A client's types
know OpenAI's five only, so a word that no table has is a `stop`.
"""

import re

_NOT_A_LETTER = re.compile("[^a-z]")
_NONE = frozenset({"", "null", "none", "unspecified"})
"""Not finished yet."""
_REASONS = {
    **dict.fromkeys(("length", "maxtokens", "maxoutputtokens", "maxlength", "modellength", "lengthlimit"), "length"),
    **dict.fromkeys(("maxcompletiontokens", "tokenlimit", "modelcontextwindowexceeded", "contextlength"), "length"),
    **dict.fromkeys(("toolcalls", "toolcall", "tooluse", "tool", "tools", "toolcallsrequired"), "tool_calls"),
    "functioncall": "function_call",
    **dict.fromkeys(("contentfilter", "contentfiltered", "filtered", "safety", "recitation"), "content_filter"),
    **dict.fromkeys(("prohibitedcontent", "blocklist", "spii", "sensitive", "imagesafety"), "content_filter"),
    **dict.fromkeys(("refusal", "moderation", "guardrailintervened", "guardrail"), "content_filter"),
}
_FAILED = {
    **dict.fromkeys(("error", "engineerror", "networkerror", "internalerror", "servererror"), "engine_error"),
    **dict.fromkeys(("abort", "aborted", "cancelled", "canceled", "failed", "failure"), "engine_error"),
    "insufficientsystemresource": "overloaded",  # DeepSeek
}
"""Reasons of an answer that failed, and the codes of its error."""


def finish_reason(reason: object, *, has_tools: bool = False, has_function: bool = False) -> str | None:
    """OpenAI's word. None: the answer goes on. `has_tools`, `has_function`: it has called some, or one in the old
    style."""
    if not isinstance(reason, str):
        return None
    word = _letters(reason)
    if word in _NONE:
        return None
    found = _REASONS.get(word, "stop")
    if found in ("stop", "function_call", "tool_calls"):
        return "tool_calls" if has_tools else "function_call" if has_function else found
    return found


def failure_code(reason: object) -> str | None:
    """The error code of an answer that ended in a failure. None: it did not."""
    return _FAILED.get(_letters(reason)) if isinstance(reason, str) else None


def _letters(reason: str) -> str:
    return _NOT_A_LETTER.sub("", reason.lower()).removeprefix("finishreason")
