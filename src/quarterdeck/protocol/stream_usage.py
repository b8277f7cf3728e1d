"""`stream_options.include_usage`: who asks for a stream's token counts, and who sees them.

The record needs the engine's counts of every stream, so `with_usage` requests them for clients that did not.
`split_usage` reads them from the stream and removes the chunks that such a client does not expect.
"""

from typing import Any

import msgspec

from quarterdeck.protocol import sse
from quarterdeck.protocol.requests import AnyRequest, GenerationRequest
from quarterdeck.protocol.usage import Usage, parse_usage


def includes_usage(request: AnyRequest) -> bool:
    """Whether the client asked for usage in its stream."""
    return isinstance(request, GenerationRequest) and bool(
        request.stream_options and request.stream_options.include_usage
    )


def with_usage(options: msgspec.Raw | None) -> dict[str, Any]:
    """The request's `stream_options`, with usage requested."""
    given = msgspec.json.decode(options) if options is not None else None
    return {**(given or {}), "include_usage": True}


def split_usage(whole: bytes, *, shows_usage: bool) -> tuple[Usage | None, str | None, bytes]:
    """The last valid usage in these events, the response id beside it, and the events as the client sees them.

    Unless `shows_usage`, chunks that carry usage and no choices are removed.
    """
    usage: Usage | None = None
    response_id: str | None = None
    kept: list[bytes] = []
    start = kept_from = len(whole)
    while (at := sse.usage_before(whole, start)) >= 0:
        start, end = sse.bounds(whole, at)
        chunk = sse.parse(whole[start:end])
        if chunk is None or not chunk.get("usage"):
            continue
        if usage is None and (usage := parse_usage(chunk["usage"])) is not None:
            found = chunk.get("id")
            response_id = found if isinstance(found, str) else None
        if not shows_usage:
            if not chunk.get("choices"):
                kept.append(whole[end:kept_from])
                kept_from = start
        elif usage is not None:
            break
    if kept:
        whole = b"".join((whole[:kept_from], *reversed(kept)))
    return usage, response_id, whole
