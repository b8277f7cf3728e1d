"""The address of a Redis server: URL parsing, authentication words and TLS, for every connection that we open."""

import ssl
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

SCHEMES = ("redis", "rediss", "unix")
DEFAULT_PORT = 6379


@dataclass(frozen=True)
class RedisAddress:
    """Where a Redis server listens, and the credentials for it. The password is left out of the repr."""

    path: str | None
    """A Unix socket; None for TCP."""
    host: str
    port: int
    tls: bool
    username: str | None
    password: str | None = field(repr=False)
    database: int = 0

    @classmethod
    def parse(cls, url: str) -> "RedisAddress":
        """Read redis://[[user]:password@]host[:port][/db], rediss://… or unix:///path[?db=N]. Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES:
            raise ValueError("a Redis URL begins with redis://, rediss:// or unix://")
        if parts.scheme == "unix":
            database = parse_qs(parts.query).get("db", ["0"])[0]
            path: str | None = unquote(parts.netloc.rpartition("@")[2] + parts.path)
        else:
            path, database = None, parts.path.strip("/") or "0"
        if not database.isdecimal():
            raise ValueError("the database of a Redis URL is a number")
        try:
            port = parts.port or DEFAULT_PORT
        except ValueError:
            # Its message would repeat the text, which is a piece of the password where that holds a slash.
            raise ValueError(
                "the port of a Redis URL is a number; / # and @ in a password must be percent-encoded"
            ) from None
        return cls(
            path=path,
            host=parts.hostname or "127.0.0.1",
            port=port,
            tls=parts.scheme == "rediss",
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            database=int(database),
        )

    def auth_command(self) -> tuple[str, ...] | None:
        """AUTH with the credentials; None if there is no password."""
        if self.password is None:
            return None
        return ("AUTH", self.username, self.password) if self.username else ("AUTH", self.password)

    def ssl_context(self) -> ssl.SSLContext | None:
        """A context that verifies the server's certificate; None without TLS."""
        return ssl.create_default_context() if self.tls else None
