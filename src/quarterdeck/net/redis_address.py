"""The address of a Redis deployment: URL parsing, credentials and TLS, for every connection that we open.

    redis://[[user]:password@]host[:port][/db]             one server; rediss:// with TLS
    unix:///path[?db=N]                                    one server on a Unix socket
    redis+sentinel://[…@]host[:port],host[:port]/name[/db] the primary that Sentinels know by this name
    redis+cluster://[…@]host[:port],host[:port]            a Redis Cluster, found by any of its nodes

rediss+sentinel:// and rediss+cluster:// use TLS for every connection. Query words: `_TLS_WORDS`, `_SENTINEL_WORDS` and
`db`. Any other is refused by name: a word that is ignored would be a promise that is not kept.
"""

import re
import ssl
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
DEFAULT_PORT = 6379
DEFAULT_SENTINEL_PORT = 26379
_TLS_WORDS = ("ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile")
"""redis-py's names."""
_SENTINEL_WORDS = ("sentinel_username", "sentinel_password")
_CERT_REQS = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_HOST = re.compile(r"\[(?P<v6>[0-9A-Fa-f:.%\w]+)\](?::(?P<v6_port>.*))?|(?P<name>[^:\[\]]*)(?::(?P<port>.*))?")
_NOT_ENCODED = "/ # ? and @ in a password must be percent-encoded"

Kind = Literal["server", "sentinel", "cluster"]


@dataclass(frozen=True, slots=True)
class RedisServer:
    """Where one server listens."""

    host: str = ""
    port: int = 0
    path: str | None = None
    """A Unix socket; None for TCP."""

    def __str__(self) -> str:
        if self.path is not None:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class RedisTLS:
    """How servers are verified, and our certificate."""

    ca_certs: str | None = None
    """A file of certificate authorities; None: the system's."""
    cert_reqs: str = "required"
    """`required`, `optional` or `none`: whether the server's certificate is verified."""
    check_hostname: bool = True
    certfile: str | None = None
    keyfile: str | None = None

    def context(self) -> ssl.SSLContext:
        """Read with each connection, so that renewed certificates are used. Raises OSError that names the file."""
        try:
            context = ssl.create_default_context(cafile=self.ca_certs)
        except OSError as error:
            raise OSError(f"ssl_ca_certs {self.ca_certs}: {error}") from error
        context.check_hostname = self.check_hostname and self.cert_reqs == "required"
        context.verify_mode = _CERT_REQS[self.cert_reqs]
        if self.certfile is not None:
            try:
                context.load_cert_chain(self.certfile, self.keyfile)
            except OSError as error:
                raise OSError(f"ssl_certfile {self.certfile}, ssl_keyfile {self.keyfile}: {error}") from error
        return context


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where Redis is, and the credentials for it. Passwords are left out of the repr."""

    kind: Kind
    servers: tuple[RedisServer, ...]
    """The server; or Sentinels, or nodes of the Cluster."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    tls: RedisTLS | None = None
    primary_name: str = ""
    """What Sentinels call the primary."""
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> "RedisAddress":
        """Read a URL. Raises ValueError, whose message has no piece of the URL that may belong to a password."""
        try:
            parts = urlsplit(url)
        except ValueError:  # its message may repeat the password
            raise ValueError(f"a Redis URL can't be read; {_NOT_ENCODED}") from None
        if parts.scheme not in SCHEMES:
            raise ValueError(f"a Redis URL begins with {'://, '.join(SCHEMES[:-1])}:// or {SCHEMES[-1]}://")
        if parts.fragment or "@" in parts.query or ("@" in parts.path and parts.scheme != "unix"):
            raise ValueError(f"a Redis URL has no '#', and its '@' is before the host; {_NOT_ENCODED}")
        transport, _, mode = parts.scheme.partition("+")
        kind: Kind = "server" if not mode else "sentinel" if mode == "sentinel" else "cluster"
        words = _query(parts.query, ("db", *_TLS_WORDS, *(_SENTINEL_WORDS if kind == "sentinel" else ())))
        userinfo, _, hosts = parts.netloc.rpartition("@")
        username, _, password = userinfo.partition(":")
        path = unquote(parts.path)
        if transport == "unix":
            servers: tuple[RedisServer, ...] = (RedisServer(path=unquote(hosts) + path),)
            name, database = "", ""
        else:
            servers = _servers(hosts, DEFAULT_SENTINEL_PORT if kind == "sentinel" else DEFAULT_PORT)
            name, _, database = path.strip("/").partition("/") if kind == "sentinel" else ("", "", path.strip("/"))
        if kind == "server" and len(servers) > 1:
            raise ValueError("a redis:// URL has one host; use redis+sentinel:// or redis+cluster:// for several")
        if kind == "sentinel" and not name:
            raise ValueError(
                "a redis+sentinel:// URL ends with the primary's name: redis+sentinel://host:26379/mymaster"
            )
        return cls(
            kind=kind,
            servers=servers,
            username=unquote(username) or None,
            password=unquote(password) or None,
            database=_database(database or words.get("db", "0"), kind),
            tls=_tls(words, transport),
            primary_name=name,
            sentinel_username=words.get("sentinel_username"),
            sentinel_password=words.get("sentinel_password"),
        )

    def auth_command(self) -> tuple[str, ...] | None:
        """AUTH with the credentials; None if there are none. A user without a password has an empty one."""
        if self.password is None:
            return ("AUTH", self.username, "") if self.username else None
        return ("AUTH", self.username, self.password) if self.username else ("AUTH", self.password)

    def ssl_context(self) -> ssl.SSLContext | None:
        """None without TLS. Raises OSError where a file cannot be read."""
        return None if self.tls is None else self.tls.context()


def _query(text: str, known: tuple[str, ...]) -> dict[str, str]:
    words = dict(parse_qsl(text, keep_blank_values=True))
    for name in words:
        if name in known:
            continue
        shown = name if re.fullmatch(r"[a-z][a-z0-9_]{0,40}", name) else "?"
        raise ValueError(f"unsupported query word {shown!r} in a Redis URL; supported: {', '.join(known)}")
    return words


def _servers(hosts: str, default_port: int) -> tuple[RedisServer, ...]:
    servers = []
    for text in hosts.split(","):
        found = _HOST.fullmatch(text.strip())
        port = (found["port"] or found["v6_port"] or str(default_port)) if found else ""
        if found is None or not port.isascii() or not port.isdecimal() or not 0 < int(port[:6]) <= 65535:
            # Without the text: it is a piece of the password where that holds a slash.
            raise ValueError(f"the port of a Redis URL is a number; {_NOT_ENCODED}")
        servers.append(RedisServer(unquote(found["v6"] or found["name"] or "127.0.0.1"), int(port)))
    return tuple(servers)


def _database(text: str, kind: Kind) -> int:
    if not text.isascii() or not text.isdecimal():
        raise ValueError("the database of a Redis URL is a number")
    if kind == "cluster" and int(text):
        raise ValueError("a Redis Cluster has only database 0")
    return int(text)


def _tls(words: dict[str, str], transport: str) -> RedisTLS | None:
    if transport != "rediss":
        if used := [name for name in _TLS_WORDS if name in words]:
            raise ValueError(f"{used[0]} in a Redis URL needs rediss://")
        return None
    cert_reqs = words.get("ssl_cert_reqs", "required")
    if cert_reqs not in _CERT_REQS:
        raise ValueError(f"ssl_cert_reqs in a Redis URL is one of {', '.join(_CERT_REQS)}")
    check = words.get("ssl_check_hostname", "true").lower()
    if check not in ("true", "false"):
        raise ValueError("ssl_check_hostname in a Redis URL is true or false")
    if words.get("ssl_keyfile") and not words.get("ssl_certfile"):
        raise ValueError("ssl_keyfile in a Redis URL needs ssl_certfile")
    return RedisTLS(
        ca_certs=words.get("ssl_ca_certs") or None,
        cert_reqs=cert_reqs,
        check_hostname=check == "true",
        certfile=words.get("ssl_certfile") or None,
        keyfile=words.get("ssl_keyfile") or None,
    )
