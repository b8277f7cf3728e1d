"""Affinity keys: 64-bit hashes of a prompt's prefix or of a session, equal for requests that should share an endpoint.

A prompt counts up to its first assistant message and at most `prefix_kb`. So a conversation keeps its key as it grows,
and the cost doesn't grow with the prompt.
"""

from collections.abc import Mapping
from zlib import crc32

import msgspec

from quarterdeck.protocol.requests import AnyRequest
from quarterdeck.settings.routes import RoutingConfig

_ASSISTANT = b'"assistant"'
_SEPARATORS = b" \t\r\n,]"
_MASK = (1 << 64) - 1


def prefix_key(members: Mapping[str, msgspec.Raw], length: int) -> int:
    """The key of a prompt's first `length` bytes, as the request spells them. 0 where it has no prompt."""
    raw = members.get("messages") or members.get("prompt") or members.get("input")
    if raw is None:
        return 0
    head = bytes(memoryview(raw)[:length])
    at = head.find(_ASSISTANT)
    if at >= 0:
        head = head[: head.rfind(b"{", 0, at)]
    return mixed(crc32(head.rstrip(_SEPARATORS)))


def session_key(
    config: RoutingConfig, request: AnyRequest, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> int | None:
    """The key of the request's session, found where `config.session` says. None: the request names none."""
    found: object = None
    if config.session == "metadata.session_id":
        found = request.metadata.get("session_id") if request.metadata else None
    elif config.session == "user":
        found = request.safety_identifier or request.user
    else:
        wanted = config.session.removeprefix("header:").encode()
        found = next((value.decode("latin-1") for name, value in headers if name == wanted), None)
    return mixed(crc32(found.encode("utf-8", "surrogatepass"))) if isinstance(found, str) and found else None


def mixed(bits: int) -> int:
    """The finalizer of splitmix64: spreads similar inputs over all 64 bits."""
    bits = (bits + 0x9E3779B97F4A7C15) & _MASK
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & _MASK
    return bits ^ (bits >> 31)
