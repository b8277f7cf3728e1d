"""Response objects, with every member as OpenAI shows it. Pure."""

from collections.abc import Mapping
from typing import Any

from quarterdeck.errors import APIError, BadRequestError, RateLimitError
from quarterdeck.protocol.usage import Usage
from quarterdeck.resources.responses import tools
from quarterdeck.resources.responses.requests import ResponseRequest

Response = dict[str, Any]

NUMBERS = {"temperature": 1.0, "top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
"""Defaults of sampling, shown where the request states none."""
INTERRUPTED = "The gateway stopped before the response was complete."


def new_response(request: ResponseRequest, id: str, created: float, engine: Mapping[str, Any]) -> Response:
    """A response that has just begun. Raises BadRequestError for tools and formats that are not served."""
    shown = tools.shown_tools(request)
    reasoning, text = request.reasoning, request.text
    conversation = request.conversation_id
    numbers = {
        name: value if isinstance(value := engine.get(name), int | float) else default
        for name, default in NUMBERS.items()
    }
    for name in ("temperature", "top_p"):
        if (value := getattr(request, name)) is not None:
            numbers[name] = value
    return {
        "id": id,
        "object": "response",
        "created_at": int(created),
        "completed_at": None,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "model": request.model or "",
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "conversation": None if conversation is None else {"id": conversation},
        "prompt": request.prompt,
        "prompt_cache_key": request.prompt_cache_key,
        "prompt_cache_retention": request.prompt_cache_retention,
        "reasoning": {
            "effort": reasoning.effort if reasoning is not None else None,
            "summary": reasoning.summary if reasoning is not None else None,
        },
        "safety_identifier": request.safety_identifier,
        "service_tier": "default",
        "store": request.store is not False,
        **numbers,
        "text": {
            "format": tools.shown_format(request),
            "verbosity": (text.verbosity if text is not None else None) or "medium",
        },
        "tool_choice": tools.shown_choice(request, shown),
        "tools": shown,
        "top_logprobs": request.top_logprobs or 0,
        "truncation": request.truncation or "disabled",
        "usage": None,
        "user": request.user,
        "metadata": request.metadata or {},
    }


def usage_object(usage: Usage | None) -> dict[str, Any] | None:
    """None: the engine reported none."""
    if usage is None:
        return None
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }


def error_object(error: APIError) -> dict[str, str]:
    """The `error` of a failed response. OpenAI has no code for an engine that failed but `server_error`."""
    code = "server_error"
    if isinstance(error, RateLimitError):
        code = "rate_limit_exceeded"
    elif isinstance(error, BadRequestError):
        code = "invalid_prompt"
    return {"code": code, "message": error.message}


def interrupted(response: Response) -> Response:
    """A stored response whose gateway ended before the response did."""
    error = {"code": "server_error", "message": INTERRUPTED}
    # No `incomplete_details`: the reasons that the SDKs know are the model's.
    return {**response, "status": "incomplete", "incomplete_details": None, "error": error}
