"""What makes two requests belong together: the beginning of their prompts, or a session. 64 bits of it.

A prompt counts up to its first answer and no further than `prefix_kb`: so a conversation keeps its key as it grows, and
a megabyte costs what a kilobyte costs.
"""

from collections.abc import Mapping
from zlib import crc32

import msgspec

from quarterdeck.protocol.requests import AnyRequest
from quarterdeck.settings.routes import RoutingConfig

_ANSWER = b'"assistant"'
_BETWEEN = b" \t\r\n,]"
_MASK = (1 << 64) - 1


def prefix_key(members: Mapping[str, msgspec.Raw], length: int) -> int:
    """The key of a prompt's first `length` bytes, as they stand in the request."""
    raw = members.get("messages") or members.get("prompt") or members.get("input")
    if raw is None:
        return 0
    head = bytes(memoryview(raw)[:length])
    answer = head.find(_ANSWER)
    if answer >= 0:
        head = head[: head.rfind(b"{", 0, answer)]
    return mixed(crc32(head.rstrip(_BETWEEN)))


def session_key(
    config: RoutingConfig, request: AnyRequest, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> int | None:
    """The key of the session a request names where `config` says; None: it names none."""
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
    """splitmix64's last step: neighbours come to lie far apart."""
    bits = (bits + 0x9E3779B97F4A7C15) & _MASK
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & _MASK
    return bits ^ (bits >> 31)
