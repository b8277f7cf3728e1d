"""Pictures, sounds and films by their address: an engine would fetch it, from inside the cluster.

So a caller could have it read what only the cluster can reach (SSRF). Content within the request (`data:`) is always
taken; an address only where its host is one that the configuration names (`gateway.media_domains`).
"""

from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import urlsplit

from quarterdeck.errors import BadRequestError
from quarterdeck.protocol.requests import AnyRequest, ChatCompletion

ANY = "*"


def refuse_addresses(request: AnyRequest, domains: Collection[str]) -> None:
    """Raises BadRequestError where a message names an address that is not allowed."""
    if not isinstance(request, ChatCompletion) or ANY in domains:
        return
    for index, message in enumerate(request.messages):
        if not isinstance(message.content, list):
            continue
        for url in _urls(message.content):
            if not _is_allowed(url, domains):
                raise BadRequestError(
                    "Media must be part of the request (a data: URL); addresses are fetched only from hosts that this "
                    "platform's operator has named.",
                    param=f"messages[{index}].content",
                    code="media_url_not_allowed",
                )


def _urls(parts: list[dict[str, Any]]) -> Iterator[object]:
    """OpenAI's `image_url: {url}`, and `*_url` as vLLM has it for sounds and films, with or without the object."""
    for part in parts:
        for name, value in part.items():
            if name.endswith("_url"):
                yield value.get("url") if isinstance(value, dict) else value


def _is_allowed(url: object, domains: Collection[str]) -> bool:
    if not isinstance(url, str):
        return True  # no address; the engine says what is wrong with it
    if url[:5].lower() == "data:":
        return True
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and (parts.hostname or "") in domains
    except ValueError:
        return False
