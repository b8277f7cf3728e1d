"""Content parts of a request: the types that are forwarded, and the media URLs that an engine may fetch.

An engine fetches media from inside the cluster, in every operation that takes messages or content parts, so a client
could read what only the cluster can reach (SSRF). Media within the request (`data:`) is always allowed, a URL only if
its host is in `gateway.media_domains`. Types that vLLM loads as tensors or pickled objects, references to media that
another caller has sent (`uuid`, `file_id`), and types that the gateway does not know are refused.

Chats are checked on their decoded messages, which costs nothing where the content is text. Members of other operations
are decoded only if their JSON holds an object.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from ipaddress import IPv4Address
from typing import Any

import msgspec

from quarterdeck.errors import BadRequestError
from quarterdeck.inference.call import Operation
from quarterdeck.inference.request import InferenceRequest
from quarterdeck.protocol.repeated import refuse_repeated
from quarterdeck.protocol.requests import (
    MAX_ITEMS,
    ChatCompletionRequest,
    TokenizeRequest,
    decode_value,
    has_any,
    too_many,
)

ANY = "*"

PART_TYPES = (
    *("text", "image_url", "input_audio", "audio_url", "video_url", "file", "refusal"),
    # of the Responses API, and vLLM's own
    *("input_text", "output_text", "input_image", "thinking", "tool_reference"),
)
CONTENT_MEMBERS: Mapping[Operation, tuple[str, ...]] = {
    Operation.COMPLETIONS: ("prompt",),
    Operation.EMBEDDINGS: ("input", "messages"),
    Operation.CLASSIFY: ("input", "messages"),
    Operation.SCORE: ("text_1", "text_2", "queries", "documents", "items", "query", "data_1", "data_2"),
}
"""Where vLLM reads content parts in operations without typed messages. It has no objects in a completion's prompt."""

MAX_PLACE = 64
"""Characters of a place in a request, such as `input[0][17]`: a list deeper than that is none of vLLM's inputs."""
_WITH_MESSAGES = (ChatCompletionRequest, TokenizeRequest)
_OBJECT_URLS = ("url", "file_url", "image_url")
_OBJECT_DATA = ("data", "file_data")
"""Base64, or a URL for some hosted APIs."""
_TENSORS = frozenset(("image_embeds", "audio_embeds", "video_embeds", "prompt_embeds", "image_pil"))
"""vLLM reads them by name, whatever the part's type."""
_REFERENCES = frozenset(("uuid", "file_id"))
"""Names of media that were sent before, by any caller."""
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?(?:/[!-\[\]-~]*)?",
    re.IGNORECASE | re.ASCII,
)
"""Every parser finds the same host in these: no user name, backslash, white space, control or non-ASCII character, and
a slash before a query or fragment."""
_CONTAINERS = frozenset((dict, list))
_DEFAULT_PORTS = {"http": 80, "https": 443}
_PUBLIC_NAME = re.compile(r"(?:[a-z0-9_-]+\.)+(?!0x|[0-9]+$)[a-z0-9-]+", re.ASCII)
"""At least two labels, the last one not a number: no form of an IP address, no `localhost`, no trailing dot."""
_PRIVATE_SUFFIXES = (
    *(".localhost", ".local", ".internal", ".svc", ".lan", ".home", ".corp", ".intranet", ".private", ".arpa"),
)
"""Of names that are never public: clusters, clouds' metadata servers, home and office networks."""


def check_media(request: InferenceRequest, domains: Collection[str]) -> None:
    """Raises BadRequestError for a part that may not be sent, and for a URL whose host is not in `domains`."""
    parsed = request.parsed
    if isinstance(parsed, _WITH_MESSAGES):
        messages = parsed.messages or ()
        if len(messages) > MAX_ITEMS:
            raise too_many("messages", len(messages))
        if request.has_parts:
            parts = 0
            for index, message in enumerate(messages):
                if isinstance(message.content, list):
                    where = f"messages[{index}].content"
                    parts += len(message.content)
                    if parts > MAX_ITEMS:
                        raise too_many(where, parts)
                    _check_parts(message.content, where, domains)
            refuse_repeated(request.members["messages"])
        return
    for name in CONTENT_MEMBERS.get(request.operation, ()):
        raw = request.members.get(name)
        if raw is not None and b"{" in bytes(raw):
            value = decode_value(raw)
            if request.operation is not Operation.COMPLETIONS:
                _check_items(value, name, domains)
                refuse_repeated(raw)
            elif has_any(value, dict):
                raise _invalid(name, "expected one of a string or an array, but got an object instead")


def is_allowed_url(url: str, domains: Collection[str]) -> bool:
    """Whether an engine may fetch `url`: the default port of a listed host, another port if it is listed with it."""
    if url[:5].lower() == "data:":
        return True
    found = _URL.fullmatch(url)
    if found is None:
        return False
    host, scheme = found["host"].lower(), found["scheme"].lower()
    port = int(found["port"]) if found["port"] else _DEFAULT_PORTS[scheme]
    if port == _DEFAULT_PORTS[scheme] and host in domains:
        return True
    return f"{host}:{port}" in domains or (ANY in domains and _is_public(host))


def _is_public(host: str) -> bool:
    """Whether the wildcard includes the host. A name may still resolve to a private address."""
    try:
        return IPv4Address(host).is_global
    except ValueError:
        return _PUBLIC_NAME.fullmatch(host) is not None and not host.endswith(_PRIVATE_SUFFIXES)


def _check_items(value: object, name: str, domains: Collection[str]) -> None:
    """Check texts, messages, conversations and `{content: [parts]}`, alone or in lists of any depth."""
    waiting = [(value, name)]
    count = 0
    while waiting:
        item, where = waiting.pop()
        if isinstance(item, list):
            inner = sum(type(each) in _CONTAINERS for each in item)
            if inner and len(where) > MAX_PLACE:
                raise _invalid(name, "it is nested too deeply")
            count += inner
            if count <= MAX_ITEMS:
                waiting += [(each, f"{where}[{index}]") for index, each in enumerate(item) if type(each) in _CONTAINERS]
        elif isinstance(item, dict):
            content = item.get("content")
            count += len(content) if isinstance(content, list) else 0
            if count <= MAX_ITEMS:
                _check_item(item, where, domains)
        if count > MAX_ITEMS:
            raise too_many(name, count)


def _check_item(item: dict[str, Any], where: str, domains: Collection[str]) -> None:
    names = {name.lower(): name for name in item}
    if "content" in names:
        content = item[names["content"]]
        if isinstance(content, dict):
            raise _invalid(f"{where}.content", "expected one of a string or an array, but got an object instead")
        if isinstance(content, list):
            _check_parts(content, f"{where}.content", domains)
    if "type" in names or not {"content", "role"} & names.keys():
        _check_part(item, where, domains)


def _check_parts(parts: list[Any], where: str, domains: Collection[str]) -> None:
    for index, part in enumerate(parts):
        if isinstance(part, dict):
            _check_part(part, where, domains, index)
        elif isinstance(part, list):
            raise _invalid(f"{where}[{index}]", "expected an object, but got an array instead")


def _check_part(part: dict[str, Any], where: str, domains: Collection[str], index: int | None = None) -> None:
    """Check the type and then every member: vLLM reads `image_url` of a part that calls itself text, too."""
    place = where if index is None else f"{where}[{index}]"
    kind = part.get("type")
    if kind is not None and kind not in PART_TYPES:
        shown = repr(kind[:64]) if isinstance(kind, str) else msgspec.json.encode(kind).decode()[:64]
        raise BadRequestError(
            f"Invalid value: {shown}. Supported values are: {', '.join(map(repr, PART_TYPES))}.",
            param=f"{place}.type",
            code="invalid_value",
        )
    for name, value in part.items():
        lower = name.lower()
        if lower in _TENSORS or (lower in _REFERENCES and value is not None):
            raise _unsupported(f"{place}.{name}")
        if lower.endswith("_url"):
            _check_url(value, where, domains, is_member=True)
        elif isinstance(value, dict) and lower in ("input_audio", "file"):
            _check_object(value, where, domains)
        elif lower in ("image", "audio", "video", "images", "audios", "videos", "content") and value is not None:
            raise _unsupported(f"{place}.{name}")


def _check_object(value: dict[str, Any], where: str, domains: Collection[str]) -> None:
    for url in _urls(value, where):
        _check_url(url, where, domains)


def _urls(value: Mapping[str, Any], where: str) -> Iterator[object]:
    for name, each in value.items():
        lower = name.lower()
        if lower in _REFERENCES and each is not None:
            raise _unsupported(f"{where}.{name}")
        if lower in _OBJECT_URLS or (lower in _OBJECT_DATA and (not isinstance(each, str) or ":" in each)):
            yield each


def _check_url(value: object, where: str, domains: Collection[str], *, is_member: bool = False) -> None:
    """`is_member`: the value of a part's `*_url`, either the URL or an object with it."""
    if is_member and isinstance(value, dict):
        _check_object(value, where, domains)
    elif isinstance(value, dict | list):
        raise _invalid(where, "expected a URL")
    elif isinstance(value, str) and not is_allowed_url(value, domains):
        # Another type is not a URL: the engine refuses it.
        raise BadRequestError(
            "Media must be sent within the request, as a data: URL. URLs are fetched only from the hosts that "
            "this platform allows.",
            param=where,
            code="media_url_not_allowed",
        )


def _invalid(where: str, reason: str) -> BadRequestError:
    return BadRequestError(f"Invalid type for '{where}': {reason}.", param=where, code="invalid_type")


def _unsupported(where: str) -> BadRequestError:
    return BadRequestError(
        f"Unsupported parameter: '{where}' can't be set by a request.", param=where, code="unsupported_parameter"
    )
