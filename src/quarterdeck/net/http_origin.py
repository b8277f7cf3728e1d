"""Where an HTTP server listens, and the heads of requests to it."""

from collections.abc import Iterable
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

ProxyUse = Literal["auto", "always", "never"]


class Origin(NamedTuple):  # the key of every pool look-up: a tuple's hash is computed in C
    """Scheme, host and port of a URL, and the path that its routes begin with."""

    host: str
    port: int
    tls: bool
    prefix: str = ""
    proxy: ProxyUse = "auto"
    """Whether it is reached through a proxy: as the environment says, always, or never."""

    @classmethod
    def parse(cls, url: str, proxy: ProxyUse = "auto") -> "Origin":
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        return cls(parts.hostname or "", parts.port or (443 if tls else 80), tls, parts.path.rstrip("/"), proxy)

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def request_head(method: str, origin: Origin, path: str, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Request line and headers. The caller appends `content-length` and the blank line."""
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return f"{method} {origin.prefix}{path} HTTP/1.1\r\nhost: {origin.authority}\r\n".encode() + lines
