"""Traces: their labels, which requests have one, and where they are sent."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from quarterdeck.settings.restart import NeedsRestart

ENVIRONMENT_PATTERN = r"^[a-z0-9_-]{1,40}$"
"""Environments that Langfuse accepts."""
SINK_NAME = r"^[a-z0-9][a-z0-9_-]{0,31}$"
RESERVED_NAMES = frozenset({"otlp", "langfuse", "phoenix"})
"""Sinks that environment variables configure."""


class SinkConfig(BaseModel):
    """A backend that receives traces by OTLP/HTTP (protobuf)."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(pattern=SINK_NAME)
    """Its name in metrics, logs and `quarterdeck status`. Not `otlp`, `langfuse` and `phoenix`:
    environment variables configure those."""
    url: str
    """The full URL that traces are posted to, such as `http://tempo:4318/v1/traces`."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Headers of each export, such as a tenant's name. Not for secrets: the file is not secret."""
    headers_env: str | None = None
    """Environment variable with more headers, as OTEL_EXPORTER_OTLP_HEADERS has them: `name=value,…`, percent-encoded.
    For secrets."""
    timeout_seconds: PositiveFloat = 10
    """How long an export may take before it is repeated. 10: OpenTelemetry's default."""
    compression: Literal["gzip", "none"] = "gzip"
    """gzip: every backend takes it, and a batch is compressed once for all sinks."""

    @field_validator("url")
    @classmethod
    def _is_a_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("a sink's url begins with http:// or https://")
        if parts.username or parts.password:
            raise ValueError("credentials don't belong into the URL: use headers_env")
        return url

    @field_validator("name")
    @classmethod
    def _is_free(cls, name: str) -> str:
        if name in RESERVED_NAMES:
            raise ValueError(f"{name!r} is the name of the sink that environment variables configure")
        return name


class TelemetryConfig(BaseModel):
    """Traces: their labels, which requests have one, and where they are sent."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    environment: str = Field(default="default", pattern=ENVIRONMENT_PATTERN)
    """Langfuse's environment: `production`, `staging`."""
    service_name: str = "quarterdeck"
    """OpenTelemetry's `service.name`. The variable OTEL_SERVICE_NAME goes before it."""
    sinks: Annotated[tuple[SinkConfig, ...], NeedsRestart("worker")] = ()
    """Backends that receive every trace, besides those of the environment's variables (OTEL_EXPORTER_OTLP_…,
    LANGFUSE_…). Each has its own backlog and pace."""
    sampling: Literal["always", "parent"] = "always"
    """Whether the flag of a caller's `traceparent` decides. always: it does not. parent: a request whose caller did not
    record its own part of the trace is not exported either.

    always: a caller's flag states what its own tracer keeps, and many are set to keep nothing.
    """
    sampling_ratio: float = Field(default=1.0, ge=0, le=1)
    """Share of requests whose trace is exported, decided by the trace id. Failed requests are always exported."""
    engine_traceparent: bool = False
    """Whether engines get a `traceparent` with every request, so that vLLM's own spans (`--otlp-traces-endpoint`) are
    part of the trace. Off: only where the caller sent one; an engine without tracing has no use for it."""
    max_waiting_mb: PositiveInt = 128
    """Memory in Redis, in MiB, of compressed traces that wait for one sink, shared evenly by organisations. Beyond it
    the oldest are dropped and counted.

    128: some 450,000 traces without contents, half an hour of 250 requests a second.
    """

    @model_validator(mode="after")
    def _names_are_unique(self) -> "TelemetryConfig":
        names = [sink.name for sink in self.sinks]
        if len(set(names)) < len(names):
            raise ValueError("two sinks have the same name")
        return self
