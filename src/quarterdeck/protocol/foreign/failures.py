"""The error that a 200 of another server reports, in whichever place. Pure.

Beside OpenAI's `error` there are: an error in a choice (OpenRouter), a finish reason, `object: error` (older vLLM,
SGLang), `error_message`, FastAPI's `detail`, `errors` (Cloudflare), `code` and `msg` (Zhipu, Baidu), `base_resp`
(MiniMax). Those of no own name count only where an answer is missing.
"""

from typing import Any

from quarterdeck.protocol.foreign import finish_reasons

_UNFINISHED = "The engine could not finish its answer."
_TELLING = ("errors", "error_message", "detail", "error_msg")
_WORDS = ("message", "msg")


def failure_of(chunk: dict[str, Any], *, is_error: bool = False) -> dict[str, Any] | None:
    """The error object of a chunk or a whole answer. None: it reports none. `is_error`: it is known to be one."""
    error: Any = chunk.get("error")
    choices = chunk.get("choices")
    if not error and isinstance(choices, list):
        error = next(filter(None, map(_of_choice, choices)), None)
    if not error and (is_error or chunk.get("object") == "error"):
        error = chunk
    if not error and not choices and "data" not in chunk:
        error = _of_nothing(chunk)
    if not error:
        return None
    if isinstance(error, dict):
        return error
    if isinstance(error, list):
        error = "; ".join(str(each.get("message", each) if isinstance(each, dict) else each) for each in error)
    return {"message": str(error), "type": chunk.get("error_type"), "code": chunk.get("code")}


def _of_choice(choice: Any) -> Any:
    if not isinstance(choice, dict):
        return None
    if error := choice.get("error"):
        return error
    code = finish_reasons.failure_code(choice.get("finish_reason"))
    return {"message": _UNFINISHED, "code": code} if code else None


def _of_nothing(chunk: dict[str, Any]) -> dict[str, Any] | None:
    """The error of an object without an answer."""
    state = chunk.get("base_resp")
    if isinstance(state, dict) and state.get("status_code"):
        return {"message": str(state.get("status_msg") or _UNFINISHED), "code": state["status_code"]}
    if any(chunk.get(name) for name in _TELLING):
        found = {name: value for name, value in chunk.items() if name != "error_message"}
        return {**found, "message": chunk["error_message"]} if chunk.get("error_message") else found
    is_refusal = chunk.get("success") is False or chunk.get("type") == "error" or chunk.get("code")
    return chunk if is_refusal and any(isinstance(chunk.get(name), str) for name in _WORDS) else None
