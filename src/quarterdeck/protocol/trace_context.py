"""W3C Trace Context: `traceparent` and `tracestate`, read from a caller and written for an engine.

https://www.w3.org/TR/trace-context/: a header that is malformed is ignored, and a state without a valid parent as well.
"""

import re

import msgspec

MAX_STATE = 512
"""Characters of a tracestate that are passed on, as the specification asks for at least; further members are
dropped."""

_PARENT = re.compile(
    rb"(?P<version>(?!ff)[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-(?P<span>(?!0{16})[0-9a-f]{16})-"
    rb"(?P<flags>[0-9a-f]{2})(?P<more>-.*)?",
    re.DOTALL,
)
_MEMBER = re.compile(
    r"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_SAMPLED = 1


class TraceContext(msgspec.Struct, frozen=True, gc=False):
    """The span of a caller that a request belongs to."""

    trace_id: str = ""
    """32 hex digits. Empty: the request is a trace of its own."""
    span_id: str = ""
    """16 hex digits; empty with `trace_id`."""
    is_sampled: bool = True
    state: str = ""

    def parent_of(self, trace_id: str, span_id: str) -> list[tuple[bytes, bytes]]:
        """The headers for a call whose span is `span_id`. `trace_id`: the request's own, where the caller has none."""
        flags = "01" if self.is_sampled else "00"
        headers = [(b"traceparent", f"00-{self.trace_id or trace_id}-{span_id}-{flags}".encode())]
        return [*headers, (b"tracestate", self.state.encode())] if self.state else headers


OWN = TraceContext()
"""Of a request that continues no trace."""


def read_trace_context(parent: bytes, state: bytes = b"") -> TraceContext | None:
    """Read the two headers. None: there is no valid `traceparent`."""
    found = _PARENT.fullmatch(parent)
    if found is None or (found["version"] == b"00" and found["more"] is not None):
        return None
    is_sampled = bool(int(found["flags"], 16) & _SAMPLED)
    return TraceContext(found["trace"].decode(), found["span"].decode(), is_sampled, _state(state) if state else "")


def _state(value: bytes) -> str:
    """A tracestate, without what is beyond MAX_STATE. Empty: it is malformed, and no part of it may be passed on."""
    members = [member.strip(" \t") for member in value.decode("latin-1").split(",")]
    members = [member for member in members if member]
    keys = {member.partition("=")[0] for member in members}
    if len(members) > 32 or len(keys) < len(members) or not all(map(_MEMBER.fullmatch, members)):
        return ""
    while sum(map(len, members)) + len(members) - 1 > MAX_STATE:
        members.pop()
    return ",".join(members)
