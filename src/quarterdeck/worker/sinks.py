"""The trace sinks of a worker: of the environment's variables and of `telemetry.sinks`."""

import base64
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from quarterdeck.net.proxies import Proxies
from quarterdeck.settings.environment import Environment, LangfuseProject, header_pairs
from quarterdeck.settings.telemetry import SinkConfig, TelemetryConfig
from quarterdeck.telemetry.traces.exporter import OTLPExporter

log = logging.getLogger(__name__)

LANGFUSE_PATH = "/api/public/otel/v1/traces"


@dataclass(frozen=True, slots=True)
class Sink:
    """A backend that receives traces."""

    name: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_seconds: float = 10.0
    is_compressed: bool = True


def sinks_of(environment: Environment, telemetry: TelemetryConfig) -> list[Sink]:
    """Each sink once: the OTLP endpoint may be the same Langfuse. None with OpenTelemetry's switch."""
    if environment.variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    sinks = []
    if environment.otlp_endpoint is not None:
        is_compressed = environment.otlp_compression == "gzip"
        timeout = environment.otlp_timeout_seconds
        sinks.append(Sink("otlp", environment.otlp_endpoint, environment.otlp_headers, timeout, is_compressed))
    if environment.langfuse is not None:
        langfuse = _langfuse(environment.langfuse)
        known = [(sink.url, sink.headers.get("authorization")) for sink in sinks]
        if (langfuse.url, langfuse.headers["authorization"]) not in known:
            sinks.append(langfuse)
    if environment.phoenix_url is not None:
        key = environment.phoenix_api_key
        headers = {"authorization": f"Bearer {key}"} if key else {}
        sinks.append(Sink("phoenix", f"{environment.phoenix_url}/v1/traces", headers))
    ignored: list[str] = []
    sinks += [_of(config, environment, ignored) for config in telemetry.sinks]
    for text in ignored:
        log.warning("%s", text)
    return sinks


def exporter_of(sink: Sink, environment: Environment, telemetry: TelemetryConfig, version: str) -> OTLPExporter:
    """Raises ValueError for a malformed URL."""
    return OTLPExporter(
        sink.url,
        headers=sink.headers,
        service_name=telemetry.service_name,
        service_version=version,
        environment=telemetry.environment,
        attributes={k: v for k, v in environment.otel_attributes.items() if k != "service.name"},
        timeout=sink.timeout_seconds,
        proxies=Proxies(environment.variables),
        is_compressed=sink.is_compressed,
    )


def _langfuse(project: LangfuseProject) -> Sink:
    keys = base64.b64encode(f"{project.public_key}:{project.secret_key}".encode()).decode()
    headers = {"authorization": f"Basic {keys}", "x-langfuse-public-key": project.public_key}
    return Sink("langfuse", project.url + LANGFUSE_PATH, headers)


def _of(config: SinkConfig, environment: Environment, ignored: list[str]) -> Sink:
    variable = config.headers_env
    secret = header_pairs(variable, environment.variables.get(variable, ""), ignored) if variable else {}
    headers = {name.lower(): value for name, value in config.headers.items()} | secret
    return Sink(config.name, config.url, headers, config.timeout_seconds, config.compression == "gzip")
