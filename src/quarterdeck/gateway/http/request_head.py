"""What a handler learns of a request besides its body."""

from quarterdeck.accounting.principal import Principal
from quarterdeck.gateway.http.credentials import KEY_HEADERS, one_of
from quarterdeck.protocol.job_credentials import JobClaims

Header = tuple[bytes, bytes]

_READ = frozenset(
    (
        *(b"cache-control", b"content-length", b"content-encoding", b"x-client-request-id", b"authorization"),
        *(b"traceparent", b"tracestate", *KEY_HEADERS),
    )
)

MAX_DIGITS = 20
"""Of a Content-Length: as many as the largest number of 64 bits has."""


class RequestHead:
    """Read from the headers in one pass: this is done for each request. Names of `headers` are in lower case."""

    __slots__ = (
        "authorization",
        "cache_control",
        "client_id",
        "content_encoding",
        "content_length",
        "forwarded",
        "headers",
        "job",
        "parameters",
        "path",
        "principal",
        "query",
        "request_id",
        "started",
        "traceparent",
        "tracestate",
    )

    def __init__(self, path: str, headers: list[Header], forward: frozenset[bytes]) -> None:
        self.path = path
        self.headers = headers
        self.query = b""
        """The query string as the client sent it."""
        self.parameters: dict[str, str] | None = None
        """Values of the path's parameters, where its template has any."""
        self.request_id = ""
        """Set, as is `started` (Unix seconds), when the request enters the lifecycle."""
        self.started = 0.0
        self.principal: Principal = None  # type: ignore[assignment]  # set before a handler sees it
        self.job: JobClaims | None = None
        """Of a request that a worker sends for a job."""
        self.authorization: bytes | None = None
        self.cache_control = b""
        self.client_id: bytes | None = None
        self.content_length: int | None = None
        self.content_encoding = b""
        self.traceparent: bytes | None = None
        """W3C's header. Empty: there were several, which is as if it were malformed."""
        self.tracestate = b""
        self.forwarded: tuple[Header, ...] = ()
        """Headers that an engine may see."""
        if forward:
            self.forwarded = tuple([header for header in headers if header[0] in forward])
        for name, value in headers:
            if name in _READ:
                if name == b"authorization":
                    self.authorization = value if self.authorization is None else one_of(self.authorization, value)
                elif name == b"content-length":
                    if len(value) <= MAX_DIGITS and value.isdigit():  # as `content_length`
                        self.content_length = int(value)
                elif name == b"cache-control":
                    self.cache_control += b"," + value if self.cache_control else value
                elif name == b"x-client-request-id":
                    self.client_id = value
                elif name == b"content-encoding":
                    self.content_encoding = value
                elif name == b"traceparent":
                    self.traceparent = value if self.traceparent is None else b""
                elif name == b"tracestate":
                    self.tracestate += b"," + value if self.tracestate else value
                else:
                    self.authorization = one_of(self.authorization, b"Bearer " + value)

    def header(self, name: bytes) -> bytes | None:
        """The first header of that name."""
        return next((value for key, value in self.headers if key == name), None)


def content_length(value: bytes) -> int | None:
    """Of a Content-Length header. None: no number, or one with so many digits (zeros, as the server has read it) that
    the body is measured as it arrives: int() refuses thousands of them."""
    return int(value) if len(value) <= MAX_DIGITS and value.isdigit() else None
