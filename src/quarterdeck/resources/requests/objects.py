"""A request as the request log shows it. Pure."""

from typing import Any

import msgspec

from quarterdeck.content import Content
from quarterdeck.money import plain_text
from quarterdeck.record import RequestRecord


def request_object(record: RequestRecord) -> dict[str, Any]:
    """What a list shows. Times are Unix seconds, durations seconds, money is exact text in dollars."""
    first = record.first_token
    return {
        "id": record.id,
        "object": "request",
        "created": int(record.started),
        "started": record.started,
        "ended": record.ended,
        "latency": round(record.ended - record.started, 6),
        "time_to_first_token": None if first is None else round(first - record.started, 6),
        "org": record.org,
        "team": record.team,
        "key": record.key,
        "key_name": record.key_name,
        "operation": record.operation,
        "model": record.model,
        "route": record.route or None,
        "endpoint": record.endpoint or None,
        "prompt": record.prompt,
        "prompt_version": record.prompt_version,
        "prompt_label": record.prompt_label,
        "stream": record.stream,
        "status": record.status,
        "http_status": record.http_status,
        "error_code": record.error_code,
        "finish_reason": record.finish_reason,
        "input_tokens": record.input_tokens,
        "cached_tokens": record.cached_tokens,
        "output_tokens": record.output_tokens,
        "reasoning_tokens": record.reasoning_tokens,
        "audio_seconds": record.audio_ms / 1000,
        "characters": record.characters,
        "images": record.images,
        "cost": plain_text(record.cost),
        "saved": plain_text(record.saved),
        "cache": record.cache,
        "resumed": record.resumed,
        "retries": max(0, len(record.attempts) - 1 - record.resumed),
        "user": record.user,
        "session": record.session,
        "tags": list(record.all_tags),
        "content": record.content,
    }


def request_detail(record: RequestRecord, content: Content | None) -> dict[str, Any]:
    """One request with its attempts, parameters and content. `content` of None: none is stored (any more)."""
    return {
        **request_object(record),
        "trace_id": record.trace_id,
        "response_id": record.response_id,
        "parent": record.parent,
        "usage_source": record.usage_source,
        "price": {
            "version": record.price_version,
            "input": plain_text(record.price_input),
            "cached_input": plain_text(record.price_cached),
            "output": plain_text(record.price_output),
        },
        "cache_age": record.cache_age,
        "parameters": {
            name: value
            for name in ("max_tokens", "temperature", "top_p", "seed")
            if (value := getattr(record, name)) is not None
        },
        "priority": record.priority,
        "attempts": [msgspec.to_builtins(attempt) for attempt in record.attempts],
        **content_fields(content),
    }


def content_fields(content: Content | None) -> dict[str, Any]:
    """`input`, `output` and what is known of them; null where nothing is stored."""
    if content is None:
        return {"input": None, "output": None, "content_details": None}
    return {
        "input": None if content.input is None else msgspec.json.decode(content.input),
        "output": None if content.output is None else msgspec.json.decode(content.output),
        "content_details": {
            "level": content.level,
            "input_bytes": content.input_bytes,
            "output_bytes": content.output_bytes,
            "input_sha256": content.input_hash or None,
            "output_sha256": content.output_hash or None,
            "input_cut": content.is_input_cut,
            "output_cut": content.is_output_cut,
            "redacted": content.redacted,
        },
    }
