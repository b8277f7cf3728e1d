"""URLs of images, audio and video in a chat: an engine fetches them, from inside the cluster.

A client could read through it what only the cluster can reach (SSRF). Content within the request (`data:`) is always
allowed; a URL only where its host is in `gateway.media_domains`.
"""

from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import urlsplit

from quarterdeck.errors import BadRequestError
from quarterdeck.inference.request import InferenceRequest
from quarterdeck.protocol.requests import ChatCompletionRequest

ANY = "*"


def check_media_urls(request: InferenceRequest, domains: Collection[str]) -> None:
    """Raises BadRequestError where a message has a URL whose host is not allowed."""
    parsed = request.parsed
    if not isinstance(parsed, ChatCompletionRequest) or ANY in domains:
        return
    for index, message in enumerate(parsed.messages):
        if not isinstance(message.content, list):
            continue
        for url in _urls(message.content):
            if not _is_allowed(url, domains):
                raise BadRequestError(
                    "Media must be sent within the request, as a data: URL. URLs are fetched only from the hosts that "
                    "this platform allows.",
                    param=f"messages[{index}].content",
                    code="media_url_not_allowed",
                )


def _urls(parts: list[dict[str, Any]]) -> Iterator[object]:
    """OpenAI's `image_url: {url}`, and vLLM's `*_url` for audio and video, with or without the object."""
    for part in parts:
        for name, value in part.items():
            if name.endswith("_url"):
                yield value.get("url") if isinstance(value, dict) else value


def _is_allowed(url: object, domains: Collection[str]) -> bool:
    if not isinstance(url, str):
        return True  # not a URL: the engine rejects it
    if url[:5].lower() == "data:":
        return True
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and (parts.hostname or "") in domains
    except ValueError:
        return False
