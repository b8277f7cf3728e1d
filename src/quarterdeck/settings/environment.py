"""Settings from environment variables: QUARTERDECK_* and OpenTelemetry's own.

The only place that reads `os.environ`. Each process reads it once, in its `__main__`, and passes the values on.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import quote, unquote, urlsplit

from quarterdeck.settings.files import read_file

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://\S*")
"""What Kubernetes puts into `<SERVICE>_PORT` for each Service of the namespace: `tcp://10.96.12.7:8000`."""

_OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
MAX_SECRET_BYTES = 16 * 1024
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")


def _text(environ: Mapping[str, str], name: str) -> str:
    """A variable without white space around it: secrets made of files end with a new line."""
    return environ.get(name, "").strip()


def _folder(environ: Mapping[str, str], name: str, xdg: str, fallback: str) -> Path:
    if value := environ.get(name):
        return Path(value).expanduser().absolute()
    parent = environ.get(xdg)
    try:
        return (Path(parent) if parent else Path.home() / fallback).absolute() / "quarterdeck"
    except RuntimeError:  # no HOME, and a user that the system does not know, as OpenShift has pods run
        raise ValueError(f"{name} must be set: this process has no home folder") from None


MIN_TOKEN = 16
"""Characters of a bearer token of ours."""


@dataclass(frozen=True, slots=True)
class LangfuseProject:
    """A project of a Langfuse server."""

    url: str
    """Of the server, without a path of its API."""
    public_key: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SecretVariable:
    """A secret in a variable, or in the file that the variable with `_FILE` names. The file may change."""

    name: str
    value: str = field(default="", repr=False)
    file: Path | None = None

    def read(self) -> str:
        """The secret as it is now, without white space around it. Raises OSError and ValueError, neither of which has
        any of it."""
        if self.file is None:
            return self.value
        try:
            return read_file(self.file, MAX_SECRET_BYTES).decode("ascii").strip()
        except UnicodeDecodeError:
            raise ValueError(f"{self.name}_FILE: {self.file} is not ASCII") from None

    def read_token(self) -> str:
        """The secret as a bearer token. Raises ValueError where it is too short, and as `read`."""
        token = self.read()
        if len(token) < MIN_TOKEN:
            raise ValueError(f"{self.name} must have at least {MIN_TOKEN} characters")
        return token


@dataclass(frozen=True, slots=True)
class Environment:
    """Addresses, folders and ports of this process. Every field has a variable (docs/reference/settings.md)."""

    config: Path | None
    """QUARTERDECK_CONFIG: path of quarterdeck.yaml. Default: the file shipped with the package."""
    state: Path
    """QUARTERDECK_STATE: folder of persistent data: database, Redis file, credentials, spool. Mode 0700."""
    cache: Path
    """QUARTERDECK_CACHE: folder of data that can be rebuilt: environments, models."""
    redis_url: str
    """QUARTERDECK_REDIS_URL, or QUARTERDECK_REDIS_URL_FILE, a file that holds it: redis://, rediss://, unix://,
    redis+sentinel:// or redis+cluster:// (docs/operations/README.md). Default: the socket of the server that `up`
    starts."""
    database_url: str
    """QUARTERDECK_DATABASE_URL, or QUARTERDECK_DATABASE_URL_FILE, a file that holds it: sqlite+aiosqlite:///… (default,
    in the state folder), or postgresql://… as libpq reads it."""
    engine_url: str | None
    """QUARTERDECK_ENGINE_URL: engine control URL, polled for `GET /endpoints`. Unset: only the file's endpoints."""
    host: str
    """QUARTERDECK_HOST: address on which the gateway listens. Loopback by default, so a laptop is not exposed."""
    port: int
    """QUARTERDECK_PORT: port of the gateway, 8000."""
    worker_port: int
    """QUARTERDECK_WORKER_PORT: port of the worker's health and metrics, 8012, on the same host."""
    engine_port: int
    """QUARTERDECK_ENGINE_PORT: the engine's control port, 8011, on loopback."""
    tls: tuple[Path, Path] | None
    """QUARTERDECK_TLS_CERT and QUARTERDECK_TLS_KEY: PEM files with which the gateway serves HTTPS on its port, and no
    HTTP. Read again when they change. Unset: HTTP, for this machine or behind a proxy (docs/operations/tls.md)."""
    otlp_endpoint: str | None
    """OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, or OTEL_EXPORTER_OTLP_ENDPOINT plus /v1/traces. Unset, or with
    OTEL_SDK_DISABLED=true or OTEL_TRACES_EXPORTER=none: no traces. The protocol is http/protobuf."""
    otlp_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """OTEL_EXPORTER_OTLP_HEADERS: `name=value,…`, such as an authorization. Never shown."""
    otlp_timeout_seconds: float = 10.0
    """OTEL_EXPORTER_OTLP_TIMEOUT, in milliseconds as OpenTelemetry has it: how long an export may take, 10 s."""
    blobs: str | None = None
    """QUARTERDECK_BLOBS: where the contents of files are stored: the path of a folder, which all gateways and workers
    share, or `s3://bucket/prefix?endpoint=https://…&region=…` with AWS's variables for credentials. Default:
    `blobs` in the state folder; in a cluster, there is no default and no file is stored (docs/files.md)."""
    otlp_compression: str = "gzip"
    """OTEL_EXPORTER_OTLP_COMPRESSION: gzip (default) or none."""
    langfuse: LangfuseProject | None = None
    """LANGFUSE_BASE_URL (or LANGFUSE_HOST), LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY: a Langfuse project that
    receives every trace. Unset, or with OTEL_SDK_DISABLED=true or LANGFUSE_TRACING_ENABLED=false: none. The secret key
    is never shown."""
    phoenix_url: str | None = None
    """PHOENIX_COLLECTOR_ENDPOINT: base URL of an Arize Phoenix that receives every trace, such as
    http://127.0.0.1:6006. `quarterdeck up --traces phoenix` sets it."""
    phoenix_api_key: str | None = field(default=None, repr=False)
    """PHOENIX_API_KEY: its key, where it asks for one. Never shown."""
    otel_service_name: str | None = None
    """OTEL_SERVICE_NAME: `service.name` of traces, instead of the file's `telemetry.service_name`."""
    otel_attributes: Mapping[str, str] = field(default_factory=dict)
    """OTEL_RESOURCE_ATTRIBUTES: `key=value,…`, added to the resource of traces. `deployment.environment.name` replaces
    the file's `telemetry.environment`; OTEL_SERVICE_NAME goes before `service.name`."""
    log_level: str = "INFO"
    """QUARTERDECK_LOG_LEVEL: DEBUG, INFO, WARNING or ERROR. Logs are JSON lines on stderr."""
    ignored: tuple[str, ...] = ()
    """Variables that were ignored, a sentence each, for the log."""
    config_map: str | None = None
    """QUARTERDECK_CONFIG_MAP: name of the ConfigMap with the configuration, which gateway and worker follow through the
    Kubernetes API. The folder of QUARTERDECK_CONFIG then is its mounted copy, read at start. Unset: no cluster."""
    namespace: str | None = None
    """QUARTERDECK_NAMESPACE: namespace of the ConfigMap and the engines. Default: the pod's own."""
    operator_token: SecretVariable | None = None
    """QUARTERDECK_OPERATOR_TOKEN, or QUARTERDECK_OPERATOR_TOKEN_FILE: bearer token of `GET /demand`, at least 16
    characters. Unset: there is no such route. Never shown."""
    metrics_token: SecretVariable | None = None
    """QUARTERDECK_METRICS_TOKEN, or QUARTERDECK_METRICS_TOKEN_FILE: bearer token of `/metrics` of gateway and worker,
    at least 16 characters. Unset: it needs none, as scrapers usually have a network of their own. Never shown."""
    bootstrap_key: SecretVariable | None = None
    """QUARTERDECK_BOOTSTRAP_KEY, or QUARTERDECK_BOOTSTRAP_KEY_FILE: an admin key of the platform that gateways make
    sure of, at least 32 characters of A-Z a-z 0-9 _ -. A new value replaces the former. Unset: none. Never shown."""
    job_gateway_url: str | None = None
    """QUARTERDECK_GATEWAY_URL: URL at which the worker calls the gateway for background responses and batches, such as
    its Service. Unset: the gateway on this machine."""
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The whole environment; keys of external endpoints, named in the file, are read from it. Never shown."""

    def url_of(self, port: int) -> str:
        """The URL of one of our ports, for a client on this machine."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104  # compared, not bound
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def gateway_url(self) -> str:
        """The gateway's URL, for a client on this machine."""
        url = self.url_of(self.port)
        return url if self.tls is None else url.replace("http://", "https://", 1)

    @property
    def is_loopback(self) -> bool:
        """Whether gateway and worker are reached from this machine alone."""
        return self.host in ("127.0.0.1", "localhost", "::1")

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read the current variables. Raises ValueError that names a malformed variable."""
        state = _folder(environ, "QUARTERDECK_STATE", "XDG_STATE_HOME", ".local/state")
        config = environ.get("QUARTERDECK_CONFIG")
        ignored: list[str] = []
        attributes = _resource_attributes(environ, ignored)
        return cls(
            config=Path(config).expanduser().absolute() if config else None,
            state=state,
            cache=_folder(environ, "QUARTERDECK_CACHE", "XDG_CACHE_HOME", ".cache"),
            redis_url=_url(environ, "QUARTERDECK_REDIS_URL") or f"unix://{quote(str(state))}/redis/redis.sock",
            database_url=_url(environ, "QUARTERDECK_DATABASE_URL") or f"sqlite+aiosqlite:///{state}/quarterdeck.db",
            engine_url=_text(environ, "QUARTERDECK_ENGINE_URL") or None,
            host=_text(environ, "QUARTERDECK_HOST") or "127.0.0.1",
            port=port_from(environ, "QUARTERDECK_PORT", 8000, ignored),
            worker_port=port_from(environ, "QUARTERDECK_WORKER_PORT", 8012, ignored),
            engine_port=port_from(environ, "QUARTERDECK_ENGINE_PORT", 8011, ignored),
            tls=_tls(environ),
            otlp_endpoint=_otlp_endpoint(environ, ignored),
            otlp_headers=_otlp_headers(environ, ignored),
            otlp_timeout_seconds=_otlp_timeout(environ, ignored),
            otlp_compression=_otlp_compression(environ, ignored),
            langfuse=_langfuse(environ, ignored),
            phoenix_url=_phoenix(environ, ignored),
            phoenix_api_key=_text(environ, "PHOENIX_API_KEY") or None,
            otel_service_name=_text(environ, "OTEL_SERVICE_NAME") or attributes.get("service.name"),
            otel_attributes=attributes,
            log_level=_log_level(environ),
            blobs=_text(environ, "QUARTERDECK_BLOBS") or None,
            ignored=tuple(ignored),
            config_map=_object_name(environ, "QUARTERDECK_CONFIG_MAP"),
            namespace=_object_name(environ, "QUARTERDECK_NAMESPACE"),
            operator_token=_secret(environ, "QUARTERDECK_OPERATOR_TOKEN"),
            metrics_token=_secret(environ, "QUARTERDECK_METRICS_TOKEN"),
            bootstrap_key=_secret(environ, "QUARTERDECK_BOOTSTRAP_KEY"),
            job_gateway_url=_job_gateway_url(environ),
            variables=dict(environ),
        )


def _tls(environ: Mapping[str, str]) -> tuple[Path, Path] | None:
    """Both files or none. Raises ValueError."""
    names = ("QUARTERDECK_TLS_CERT", "QUARTERDECK_TLS_KEY")
    cert, key = (_text(environ, name) for name in names)
    if not cert and not key:
        return None
    if not cert or not key:
        raise ValueError(f"{names[0] if cert else names[1]} is set without {names[1] if cert else names[0]}")
    return Path(cert).expanduser().absolute(), Path(key).expanduser().absolute()


def _object_name(environ: Mapping[str, str], name: str) -> str | None:
    text = _text(environ, name)
    if text and (len(text) > 253 or not _OBJECT_NAME.fullmatch(text)):
        raise ValueError(f"{name} must be the name of a Kubernetes object, not {text[:100]!r}")
    return text or None


def _secret(environ: Mapping[str, str], name: str) -> SecretVariable | None:
    value, file = _text(environ, name), _text(environ, f"{name}_FILE")
    if value and file:
        raise ValueError(f"set only one of {name} and {name}_FILE")
    return SecretVariable(name, value, Path(file) if file else None) if value or file else None


def _url(environ: Mapping[str, str], name: str) -> str:
    """A URL with a password in it, from the variable or from the file of the variable with `_FILE`. Read once. Raises
    ValueError."""
    secret = _secret(environ, name)
    try:
        return "" if secret is None else secret.read()
    except OSError as error:
        raise ValueError(f"{name}_FILE: {environ.get(f'{name}_FILE')}: {error.strerror or error}") from None


def _job_gateway_url(environ: Mapping[str, str]) -> str | None:
    """Raises ValueError."""
    url = _text(environ, "QUARTERDECK_GATEWAY_URL")
    if url and not _is_http_url(url):
        raise ValueError(f"QUARTERDECK_GATEWAY_URL must be an http:// or https:// URL, not {url[:100]!r}")
    return url.rstrip("/") or None


def port_from(environ: Mapping[str, str], name: str, default: int, ignored: list[str]) -> int:
    """A port number. Raises ValueError. A service link counts as unset; `ignored` gets a sentence for the log."""
    text = _text(environ, name) or str(default)
    if _SERVICE_LINK.fullmatch(text):
        ignored.append(
            f"{name}={text} is a Kubernetes service link and not a setting: port {default} is used"
            " (`enableServiceLinks: false` in the pod's spec removes it)"
        )
        return default
    if not text.isdecimal() or not 0 <= int(text) <= 65535:
        raise ValueError(f"{name} must be a port number, not {text!r}")
    return int(text)


def _log_level(environ: Mapping[str, str]) -> str:
    level = (_text(environ, "QUARTERDECK_LOG_LEVEL") or "INFO").upper()
    if level not in LOG_LEVELS:
        raise ValueError(f"QUARTERDECK_LOG_LEVEL must be one of {', '.join(LOG_LEVELS)}, not {level!r}")
    return level


def _otlp_endpoint(environ: Mapping[str, str], ignored: list[str]) -> str | None:
    """OpenTelemetry's rules: the traces variable is used as is; /v1/traces is appended to the general one; a value that
    can't be used is ignored with a warning, because no process may end for want of traces."""
    if (
        _text(environ, "OTEL_SDK_DISABLED").lower() == "true"
        or _text(environ, "OTEL_TRACES_EXPORTER").lower() == "none"
    ):
        return None
    name = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    url = _text(environ, name)
    if not url:
        name = "OTEL_EXPORTER_OTLP_ENDPOINT"
        if not (general := _text(environ, name)):
            return None
        url = general.rstrip("/") + "/v1/traces"
    if not _is_http_url(url):
        ignored.append(f"{name} is ignored and no traces are sent: it must be an http:// or https:// URL")
        return None
    for protocol in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if _text(environ, protocol).lower() == "grpc":
            ignored.append(f"{protocol}=grpc is not supported: traces are sent by http/protobuf (mostly port 4318)")
            break
    for certificate in ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"):
        if _text(environ, certificate):
            ignored.append(f"{certificate} is not supported: SSL_CERT_FILE names the authorities")
            break
    return url


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and url.isprintable()
    except ValueError:  # the port is no number
        return False


def _otlp_headers(environ: Mapping[str, str], ignored: list[str]) -> dict[str, str]:
    name = "OTEL_EXPORTER_OTLP_TRACES_HEADERS"
    if not _text(environ, name):
        name = "OTEL_EXPORTER_OTLP_HEADERS"
    return header_pairs(name, _text(environ, name), ignored)


def header_pairs(variable: str, text: str, ignored: list[str]) -> dict[str, str]:
    """`name=value,…`, percent-decoded as OpenTelemetry writes them: `authorization=Basic%20…`. A pair that can't be a
    header is ignored; its value is never shown."""
    headers = {}
    for number, pair in enumerate(text.split(","), start=1):
        header, equals, value = (part.strip() for part in pair.partition("="))
        if not header and not equals:
            continue
        value = unquote(value).strip()
        if equals and _HEADER_NAME.fullmatch(header) and _HEADER_VALUE.fullmatch(value):
            headers[header.lower()] = value
        else:
            ignored.append(f"{variable}: pair {number} is ignored: it is not name=value, or no valid header")
    return headers


def _otlp_timeout(environ: Mapping[str, str], ignored: list[str]) -> float:
    for name in ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"):
        if text := _text(environ, name):
            if text.isdecimal() and 0 < int(text) <= 600_000:
                return int(text) / 1000
            ignored.append(f"{name}={text} is ignored: it must be a number of milliseconds, at most 600000")
    return 10.0


def _otlp_compression(environ: Mapping[str, str], ignored: list[str]) -> str:
    for name in ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"):
        if text := _text(environ, name).lower():
            if text in ("gzip", "none"):
                return text
            ignored.append(f"{name}={text} is ignored: it must be gzip or none")
    return "gzip"


def _langfuse(environ: Mapping[str, str], ignored: list[str]) -> LangfuseProject | None:
    """Langfuse's own variables, all three of them. Its SDK's default host is a hosted service, which nothing is sent to
    unasked."""
    names = ("LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY")
    public, secret = (_text(environ, name) for name in names)
    url = (_text(environ, "LANGFUSE_BASE_URL") or _text(environ, "LANGFUSE_HOST")).rstrip("/")
    is_off = _text(environ, "OTEL_SDK_DISABLED").lower() == "true"
    is_off = is_off or _text(environ, "LANGFUSE_TRACING_ENABLED").lower() in ("false", "0")
    if is_off or not (public or secret or url):
        return None
    missing = [name for name, value in zip(names, (public, secret), strict=True) if not value]
    missing += ["LANGFUSE_BASE_URL"] * (not url)
    if missing:
        ignored.append(f"no traces are sent to Langfuse: {' and '.join(missing)} is not set")
        return None
    if not _is_http_url(url) or not (_HEADER_VALUE.fullmatch(public) and _HEADER_VALUE.fullmatch(secret)):
        ignored.append("no traces are sent to Langfuse: LANGFUSE_BASE_URL or a key is malformed")
        return None
    return LangfuseProject(url, public, secret)


def _phoenix(environ: Mapping[str, str], ignored: list[str]) -> str | None:
    name = "PHOENIX_COLLECTOR_ENDPOINT"
    url = _text(environ, name).rstrip("/").removesuffix("/v1/traces")
    if not url or _text(environ, "OTEL_SDK_DISABLED").lower() == "true":
        return None
    if not _is_http_url(url):
        ignored.append(f"{name} is ignored: it must be an http:// or https:// URL")
        return None
    return url


def _resource_attributes(environ: Mapping[str, str], ignored: list[str]) -> dict[str, str]:
    """OpenTelemetry's rule: percent-decoded pairs, and a value with a malformed pair is ignored as a whole."""
    text = environ.get("OTEL_RESOURCE_ATTRIBUTES") or ""
    attributes = {}
    for pair in filter(None, (each.strip() for each in text.split(","))):
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            ignored.append(f"OTEL_RESOURCE_ATTRIBUTES is ignored: {pair!r} is not key=value")
            return {}
        attributes[unquote(name.strip())] = unquote(value.strip())
    return attributes
