"""PostgreSQL URLs as hosters print them, for asyncpg.

They are libpq's, with words that asyncpg reads itself (`sslmode`, host lists, …), words that it would pass to the
server as settings, which the server refuses (`channel_binding`, `connect_timeout`, …), and words of other clients.
Words that nothing here can follow are refused by name.
"""

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

SCHEMES = ("postgres", "postgresql", "postgresql+asyncpg")
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SESSIONS = ("any", "primary", "standby", "read-write", "read-only", "prefer-standby")
_READ_BY_ASYNCPG = frozenset(
    (
        *("host", "port", "user", "password", "dbname", "database", "passfile", "service", "krbsrvname", "gsslib"),
        *("sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation"),
        *("ssl_min_protocol_version", "ssl_max_protocol_version", "target_session_attrs"),
    )
)
_SERVER_SETTINGS = frozenset(
    (
        *("application_name", "options", "search_path", "statement_timeout", "lock_timeout"),
        *("idle_in_transaction_session_timeout", "default_transaction_isolation"),
    )
)
_WITHOUT_EFFECT = frozenset(
    (
        # libpq's, about what asyncpg does in its own way
        *("channel_binding", "client_encoding", "fallback_application_name", "gssencmode", "gssdelegation"),
        *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"),
        *("load_balance_hosts", "requiressl", "require_auth", "sslcertmode", "sslcompression", "sslsni"),
        # other clients', about prepared statements and pools: ours outlive no transaction
        *("pgbouncer", "prepared_statements", "prepared_statement_cache_size", "statement_cache_size"),
        *("connection_limit", "pool_timeout"),
    )
)
_NOT_ENCODED = "a password's / : # ? and @ are percent-encoded"


@dataclass(frozen=True, slots=True)
class PostgresTarget:
    """What `asyncpg.connect` takes."""

    dsn: str = field(repr=False)
    server_settings: Mapping[str, str]
    connect_timeout: float | None = None
    """In seconds; None: the URL has none."""
    authorities: Literal["", "system", "default"] = ""
    """The authority that verifies the server's certificate if the URL names no file. system: `sslrootcert=system`;
    default: libpq's file where there is one, else the system's."""
    checks_hostname: bool = True
    notes: tuple[str, ...] = ()
    """What of the URL is not followed, a sentence each, for the log."""

    def arguments(self, *, connect_timeout: float, command_timeout: float) -> dict[str, Any]:
        """Keyword arguments. Raises OSError where the system's certificates cannot be read."""
        arguments: dict[str, Any] = {
            "dsn": self.dsn,
            "timeout": self.connect_timeout or connect_timeout,
            "command_timeout": command_timeout,
            "server_settings": dict(self.server_settings),
            # Behind a pooler (PgBouncer in transaction mode) the next transaction may run on another server connection.
            "statement_cache_size": 0,
        }
        if self.authorities == "system" or (self.authorities == "default" and not _has_root_certificate()):
            arguments["ssl"] = ssl.create_default_context()
            arguments["ssl"].check_hostname = self.checks_hostname
        return arguments


def read_postgres_url(url: str) -> PostgresTarget:
    """Raises ValueError that names the word, without any value."""
    try:
        parts = urlsplit(url)
    except ValueError:  # its message may repeat the password
        raise ValueError(f"the database URL can't be read; {_NOT_ENCODED}") from None
    userinfo, _, hosts = parts.netloc.rpartition("@")
    if parts.fragment or "@" in parts.path + parts.query or not _are_hosts(hosts):
        raise ValueError(f"the port of a database URL is a number; {_NOT_ENCODED}")
    words = _words(parts.query)
    notes: list[str] = []
    if words.get("channel_binding") == "require":
        notes.append("channel_binding=require of the database URL is not supported by the driver; sslmode applies")
    if words.get("gssencmode") == "require":
        raise ValueError("gssencmode=require in a database URL is not supported")
    _translate_ssl(words)
    authorities: Literal["", "system", "default"] = ""
    mode = words.get("sslmode", "")
    if words.get("sslrootcert") == "system":
        del words["sslrootcert"]
        authorities = "system"
    elif mode.startswith("verify") and "sslrootcert" not in words:
        authorities = "default"
    if "host" in words:
        _split_ports(words)
    settings = {"application_name": "quarterdeck"} | {k: v for k, v in words.items() if k in _SERVER_SETTINGS}
    username, _, password = userinfo.partition(":")
    auth = quote(unquote(username), safe="") + (":" + quote(unquote(password), safe="") if password else "")
    query = urlencode({name: value for name, value in words.items() if name in _READ_BY_ASYNCPG}, safe="/,")
    return PostgresTarget(
        dsn=f"postgresql://{auth + '@' if auth else ''}{hosts}{parts.path}{'?' + query if query else ''}",
        server_settings=settings,
        connect_timeout=_seconds(words.get("connect_timeout")),
        authorities=authorities,
        checks_hostname=mode != "verify-ca",
        notes=tuple(notes),
    )


def _has_root_certificate() -> bool:
    if os.environ.get("PGSSLROOTCERT"):
        return True
    return Path("~/.postgresql/root.crt").expanduser().exists()


def _words(query: str) -> dict[str, str]:
    words: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        known = name in _READ_BY_ASYNCPG | _SERVER_SETTINGS | _WITHOUT_EFFECT or name in ("connect_timeout", "ssl")
        if not known:
            shown = name if re.fullmatch(r"[A-Za-z][A-Za-z0-9_.]{0,40}", name) else "?"
            raise ValueError(f"unsupported query word {shown!r} in the database URL")
        # Several `host=` are a list, as in SQLAlchemy's URLs.
        words[name] = f"{words[name]},{value}" if name in words and name in ("host", "port") else value
    for name, allowed in (("sslmode", _SSL_MODES), ("target_session_attrs", _SESSIONS)):
        if name in words and words[name] not in allowed:
            raise ValueError(f"{name} in a database URL is one of {', '.join(allowed)}")
    return {name: value for name, value in words.items() if value}


def _translate_ssl(words: dict[str, str]) -> None:
    """`ssl=true` of JDBC, `ssl=require` of SQLAlchemy's URLs for asyncpg."""
    value = words.pop("ssl", None)
    if value is None or "sslmode" in words:
        return
    mode = {"true": "require", "1": "require", "false": "disable", "0": "disable"}.get(value.lower(), value)
    if mode not in _SSL_MODES:
        raise ValueError(f"ssl in a database URL is true, false or one of {', '.join(_SSL_MODES)}")
    words["sslmode"] = mode


def _split_ports(words: dict[str, str]) -> None:
    """`host=h1:5432,h2:5433` as libpq writes it: `host=h1,h2&port=5432,5433`."""
    pairs = [host.rpartition(":") for host in words["host"].split(",") if not host.startswith("/")]
    if pairs and all(host and port.isdecimal() for host, _, port in pairs):
        words["host"] = ",".join(host for host, _, _ in pairs)
        words["port"] = ",".join(port for _, _, port in pairs)


def _are_hosts(hosts: str) -> bool:
    for host in hosts.split(","):
        _, colon, port = host.rpartition(":")
        if colon and not host.endswith("]") and not (port.isascii() and (not port or 0 < int(_digits(port)) <= 65535)):
            return False
    return True


def _digits(text: str) -> str:
    return text[:6] if text.isdecimal() else "0"


def _seconds(text: str | None) -> float | None:
    """`connect_timeout`. None where it is not set, or 0: libpq waits without end then, and we do not."""
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError("connect_timeout in a database URL is a number of seconds") from None
    return seconds if 0 < seconds <= 600 else None
