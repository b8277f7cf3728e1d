"""Which sinks a worker has, by its environment and configuration."""

import base64

import pytest

from quarterdeck.settings.environment import Environment
from quarterdeck.settings.telemetry import SinkConfig, TelemetryConfig
from quarterdeck.worker.sinks import Sink, sinks_of

KEYS = {"LANGFUSE_PUBLIC_KEY": "pk-lf-1", "LANGFUSE_SECRET_KEY": "sk-lf-2"}
BASIC = "Basic " + base64.b64encode(b"pk-lf-1:sk-lf-2").decode()
LANGFUSE = Sink(
    "langfuse",
    "https://lf.example.com/api/public/otel/v1/traces",
    {"authorization": BASIC, "x-langfuse-public-key": "pk-lf-1"},
)


def sinks(variables: dict[str, str], *configured: SinkConfig) -> list[Sink]:
    return sinks_of(Environment.read(variables), TelemetryConfig(sinks=configured))


def test_none_without_any_setting() -> None:
    assert sinks({}) == []


@pytest.mark.parametrize("host", ["LANGFUSE_HOST", "LANGFUSE_BASE_URL"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_langfuses_own_variables_are_enough(host: str, slash: str) -> None:
    assert sinks({**KEYS, host: "https://lf.example.com" + slash}) == [LANGFUSE]


def test_the_base_url_goes_before_the_host() -> None:
    variables = {**KEYS, "LANGFUSE_HOST": "https://old", "LANGFUSE_BASE_URL": "https://lf.example.com"}
    assert sinks(variables) == [LANGFUSE]


@pytest.mark.parametrize(
    ("missing", "name"),
    [
        ("LANGFUSE_PUBLIC_KEY", "LANGFUSE_PUBLIC_KEY"),
        ("LANGFUSE_SECRET_KEY", "LANGFUSE_SECRET_KEY"),
        ("LANGFUSE_HOST", "LANGFUSE_BASE_URL"),
    ],
)
def test_a_variable_that_is_missing_is_named_and_nothing_is_sent(missing: str, name: str) -> None:
    variables = {**KEYS, "LANGFUSE_HOST": "https://lf.example.com"}
    del variables[missing]
    environment = Environment.read(variables)
    assert environment.langfuse is None
    (note,) = environment.ignored
    assert name in note
    assert "sk-lf-2" not in note


@pytest.mark.parametrize("switch", [{"OTEL_SDK_DISABLED": "true"}, {"LANGFUSE_TRACING_ENABLED": "false"}])
def test_it_can_be_switched_off(switch: dict[str, str]) -> None:
    assert sinks({**KEYS, "LANGFUSE_HOST": "https://lf.example.com", **switch}) == []


def test_opentelemetrys_switch_turns_off_those_of_the_file_too() -> None:
    configured = SinkConfig(name="tempo", url="http://tempo:4318/v1/traces")
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4318", "PHOENIX_COLLECTOR_ENDPOINT": "http://p:6006"}
    assert len(sinks(variables, configured)) == 3
    assert sinks({**variables, "OTEL_SDK_DISABLED": "true"}, configured) == []


def test_an_otlp_endpoint_that_is_the_same_langfuse_is_one_sink() -> None:
    variables = {
        **KEYS,
        "LANGFUSE_HOST": "https://lf.example.com",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://lf.example.com/api/public/otel",
        "OTEL_EXPORTER_OTLP_HEADERS": f"Authorization={BASIC.replace(' ', '%20')}",
    }
    assert [sink.name for sink in sinks(variables)] == ["otlp"]
    other = {**variables, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://tempo:4318"}
    assert [sink.name for sink in sinks(other)] == ["otlp", "langfuse"]


def test_opentelemetrys_timeout_and_compression() -> None:
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://tempo:4318",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2500",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
    }
    assert sinks(variables) == [Sink("otlp", "http://tempo:4318/v1/traces", {}, 2.5, False)]
    odd = Environment.read({**variables, "OTEL_EXPORTER_OTLP_TIMEOUT": "soon", "OTEL_EXPORTER_OTLP_COMPRESSION": "br"})
    assert (odd.otlp_timeout_seconds, odd.otlp_compression, len(odd.ignored)) == (10.0, "gzip", 2)


def test_phoenixs_own_variables() -> None:
    variables = {"PHOENIX_COLLECTOR_ENDPOINT": "http://127.0.0.1:6006/", "PHOENIX_API_KEY": "k"}
    assert sinks(variables) == [Sink("phoenix", "http://127.0.0.1:6006/v1/traces", {"authorization": "Bearer k"})]


def test_sinks_of_the_file_come_besides_with_secrets_from_the_environment() -> None:
    configured = SinkConfig(
        name="tempo",
        url="https://tempo:4318/v1/traces",
        headers={"X-Scope-OrgID": "a"},
        headers_env="TEMPO_HEADERS",
        timeout_seconds=3,
        compression="none",
    )
    variables = {"PHOENIX_COLLECTOR_ENDPOINT": "http://p:6006", "TEMPO_HEADERS": "Authorization=Bearer%20s3cret"}
    found = sinks(variables, configured)
    assert [sink.name for sink in found] == ["phoenix", "tempo"]
    assert found[1].headers == {"x-scope-orgid": "a", "authorization": "Bearer s3cret"}
    assert (found[1].timeout_seconds, found[1].is_compressed) == (3, False)
    assert "s3cret" not in repr(found)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"name": "langfuse", "url": "http://x/v1/traces"}, "environment variables"),
        ({"name": "Bad Name", "url": "http://x"}, "pattern"),
        ({"name": "a", "url": "grpc://x:4317"}, "http"),
        ({"name": "a", "url": "http://u:p@x/v1/traces"}, "headers_env"),
        ({"name": "a", "url": "http://x", "compression": "br"}, "gzip"),
    ],
)
def test_a_sink_that_can_not_be_is_refused(fields: dict[str, str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        SinkConfig(**fields)  # type: ignore[arg-type]  # malformed on purpose


def test_two_sinks_of_one_name_are_refused() -> None:
    sink = SinkConfig(name="a", url="http://x/v1/traces")
    with pytest.raises(ValueError, match="same name"):
        TelemetryConfig(sinks=(sink, sink))
