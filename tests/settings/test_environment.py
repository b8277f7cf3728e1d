"""Environment variables and their errors."""

import dataclasses
import re
from pathlib import Path

import pytest

from quarterdeck.net.redis_address import RedisAddress
from quarterdeck.settings import environment as environment_module
from quarterdeck.settings.environment import Environment


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_told_nothing_everything_is_local(home: Path) -> None:
    environment = Environment.read({})
    state = home / ".local/state/quarterdeck"
    assert environment.config is None
    assert environment.state == state
    assert environment.cache == home / ".cache/quarterdeck"
    assert environment.redis_url == f"unix://{state}/redis/redis.sock"
    assert environment.database_url == f"sqlite+aiosqlite:///{state}/quarterdeck.db"
    assert (environment.host, environment.port) == ("127.0.0.1", 8000)
    assert (environment.engine_url, environment.otlp_endpoint, environment.log_level) == (None, None, "INFO")


def test_the_xdg_folders_are_kept_to_and_ours_go_before_them(home: Path) -> None:
    told = {"XDG_STATE_HOME": "/x/state", "XDG_CACHE_HOME": "/x/cache"}
    assert Environment.read(told).state == Path("/x/state/quarterdeck")
    assert Environment.read(told).cache == Path("/x/cache/quarterdeck")
    assert Environment.read(told | {"QUARTERDECK_STATE": "~/mine"}).state == home / "mine"


def test_an_empty_variable_is_an_unset_one(home: Path) -> None:
    names = ("CONFIG", "STATE", "CACHE", "REDIS_URL", "DATABASE_URL", "ENGINE_URL", "HOST", "PORT", "LOG_LEVEL")
    read = Environment.read({f"QUARTERDECK_{name}": "" for name in names})
    assert [getattr(read, name.lower()) for name in names] == [
        getattr(Environment.read({}), name.lower()) for name in names
    ]


@pytest.mark.parametrize("folder", ["/a b/c", "/100%41/x", "/what?/x", "/number#1/x"])
def test_a_state_folder_may_have_any_name(folder: str) -> None:
    environment = Environment.read({"QUARTERDECK_STATE": folder})
    assert RedisAddress.parse(environment.redis_url).servers[0].path == f"{folder}/redis/redis.sock"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("QUARTERDECK_PORT", "http"),
        ("QUARTERDECK_PORT", "65536"),
        ("QUARTERDECK_PORT", "-1"),
        ("QUARTERDECK_WORKER_PORT", "8 000"),
        ("QUARTERDECK_ENGINE_PORT", "8011.0"),
        ("QUARTERDECK_LOG_LEVEL", "LOUD"),
    ],
)
def test_what_is_malformed_is_named(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be"):
        Environment.read({name: value})


def test_opentelemetrys_own_variables_are_read_by_its_rules() -> None:
    general = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://sink:4318/"}
    assert Environment.read(general).otlp_endpoint == "http://sink:4318/v1/traces"
    traces = general | {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://sink/traces"}
    assert Environment.read(traces).otlp_endpoint == "http://sink/traces"
    headers = {"OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Basic%20YTpi, x-a = 1=2 ,, "}
    assert Environment.read(headers).otlp_headers == {"authorization": "Basic YTpi", "x-a": "1=2"}


@pytest.mark.parametrize("protocol", ["tcp", "udp", "sctp"])
@pytest.mark.parametrize("address", ["10.96.12.7:80", "[fd00::7]:80"])
def test_a_kubernetes_service_link_is_no_port(protocol: str, address: str) -> None:
    """Kubernetes sets <SERVICE>_PORT for each Service: for one that is named quarterdeck, too."""
    link = f"{protocol}://{address}"
    names = ("QUARTERDECK_PORT", "QUARTERDECK_WORKER_PORT", "QUARTERDECK_ENGINE_PORT")
    more = {"QUARTERDECK_PORT_8000_TCP_PORT": "8000", "QUARTERDECK_SERVICE_HOST": "10.96.12.7"}
    environment = Environment.read(dict.fromkeys(names, link) | more)
    assert (environment.port, environment.worker_port, environment.engine_port) == (8000, 8012, 8011)
    assert [text.split("=")[0] for text in environment.ignored] == list(names)
    assert "Kubernetes service link" in environment.ignored[0]
    assert Environment.read({"QUARTERDECK_PORT": "8001"}).ignored == ()


def test_opentelemetrys_resource_is_read_by_its_rules() -> None:
    told = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=a, deployment.environment.name=prod,team=a%2Cb%20c,"}
    environment = Environment.read(told)
    assert environment.otel_attributes == {
        "service.name": "a",
        "deployment.environment.name": "prod",
        "team": "a,b c",
    }
    assert environment.otel_service_name == "a"
    assert Environment.read(told | {"OTEL_SERVICE_NAME": "b"}).otel_service_name == "b"
    assert Environment.read({}).otel_service_name is None


@pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}], ids=str)
def test_opentelemetrys_switches_are_followed(off: dict[str, str]) -> None:
    sink = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://sink:4318"}
    assert Environment.read(sink | off).otlp_endpoint is None
    grpc = Environment.read(sink | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert grpc.otlp_endpoint == "http://sink:4318/v1/traces"
    assert "http/protobuf" in grpc.ignored[0]


@pytest.mark.parametrize("value", ["a", "a=1,b", "=1"])
def test_malformed_resource_attributes_are_ignored_as_a_whole(value: str) -> None:
    environment = Environment.read({"OTEL_RESOURCE_ATTRIBUTES": value})
    assert environment.otel_attributes == {}
    assert "OTEL_RESOURCE_ATTRIBUTES is ignored" in environment.ignored[0]


def test_no_secret_is_shown() -> None:
    environment = Environment.read({"OTEL_EXPORTER_OTLP_HEADERS": "authorization=canary", "CHAT_KEY": "canary"})
    assert "canary" not in repr(environment)
    assert environment.variables["CHAT_KEY"] == "canary"


@pytest.mark.parametrize("url", ["collector:4317", "localhost", "grpc://collector:4317", "http://h:port", "http://"])
def test_traces_that_can_be_sent_nowhere_end_no_process(url: str) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        environment = Environment.read({name: url})
        assert environment.otlp_endpoint is None
        assert environment.ignored == (
            f"{name} is ignored and no traces are sent: it must be an http:// or https:// URL",
        )


@pytest.mark.parametrize("pair", ["authorization=Basic%0Acanary", "canary", "a b=canary", "x=canary\u20ac", "=canary"])
def test_a_pair_that_is_no_header_is_ignored_and_not_shown(pair: str) -> None:
    environment = Environment.read({"OTEL_EXPORTER_OTLP_HEADERS": f"x-a=1,{pair}"})
    assert environment.otlp_headers == {"x-a": "1"}
    (text,) = environment.ignored
    assert "pair 2 is ignored" in text
    assert "canary" not in text


def test_white_space_around_a_value_is_no_part_of_it(home: Path) -> None:
    """A Secret made of a file ends with a new line."""
    told = {
        "QUARTERDECK_REDIS_URL": "redis://r:1\n",
        "QUARTERDECK_DATABASE_URL": " postgresql://p/q\n",
        "QUARTERDECK_ENGINE_URL": " ",
        "QUARTERDECK_HOST": "\t",
        "QUARTERDECK_PORT": " 8001 ",
        "QUARTERDECK_LOG_LEVEL": "debug\n",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://sink:4318\n",
        "OTEL_SDK_DISABLED": " False ",
    }
    read = Environment.read(told)
    assert (read.redis_url, read.database_url, read.engine_url) == ("redis://r:1", "postgresql://p/q", None)
    assert (read.host, read.port, read.log_level) == ("127.0.0.1", 8001, "DEBUG")
    assert read.otlp_endpoint == "http://sink:4318/v1/traces"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:1"),
        ("0.0.0.0", "http://127.0.0.1:1"),
        ("::", "http://127.0.0.1:1"),
        ("::1", "http://[::1]:1"),
        ("10.0.0.7", "http://10.0.0.7:1"),
    ],
)
def test_a_client_on_this_machine_finds_our_ports(home: Path, host: str, url: str) -> None:
    assert Environment.read({"QUARTERDECK_HOST": host}).url_of(1) == url


def service_links(name: str, port: int = 8000) -> dict[str, str]:
    """What Kubernetes sets in every pod for a Service of the namespace (`enableServiceLinks`)."""
    prefix, address = name.upper().replace("-", "_"), "10.96.12.7"
    url = f"tcp://{address}:{port}"
    return {
        f"{prefix}_SERVICE_HOST": address,
        f"{prefix}_SERVICE_PORT": str(port),
        f"{prefix}_SERVICE_PORT_HTTP": str(port),
        f"{prefix}_PORT": url,
        f"{prefix}_PORT_{port}_TCP": url,
        f"{prefix}_PORT_{port}_TCP_PROTO": "tcp",
        f"{prefix}_PORT_{port}_TCP_PORT": str(port),
        f"{prefix}_PORT_{port}_TCP_ADDR": address,
    }


SETTINGS = sorted(set(re.findall(r"QUARTERDECK_[A-Z_]+[A-Z]", Path(environment_module.__file__).read_text())))


@pytest.mark.parametrize("setting", [None, *SETTINGS])
def test_a_service_of_any_name_never_breaks_the_start(home: Path, setting: str | None) -> None:
    """A Service named like a setting, or like the beginning of one."""
    services = ["quarterdeck", "quarterdeck-gateway", "quarterdeck-worker", "quarterdeck-engine", "quarterdeck-redis"]
    if setting is not None:
        words = setting.lower().split("_")
        services = ["-".join(words[: length + 1]) for length in range(len(words))]
    links: dict[str, str] = {}
    for service in services:
        links |= service_links(service)
    read, plain = Environment.read(links), Environment.read({})
    for field in dataclasses.fields(Environment):
        if field.name not in ("ignored", "variables"):
            assert getattr(read, field.name) == getattr(plain, field.name), field.name
    ports = [
        name for name in links if name in ("QUARTERDECK_PORT", "QUARTERDECK_WORKER_PORT", "QUARTERDECK_ENGINE_PORT")
    ]
    assert [text.split("=")[0] for text in read.ignored] == ports
    assert all("enableServiceLinks: false" in text for text in read.ignored)


def test_in_a_cluster_the_configuration_is_a_config_map(home: Path) -> None:
    read = Environment.read({"QUARTERDECK_CONFIG_MAP": "qd-config", "QUARTERDECK_NAMESPACE": "prod"})
    assert (read.config_map, read.namespace) == ("qd-config", "prod")
    with pytest.raises(ValueError, match="QUARTERDECK_CONFIG_MAP must be the name"):
        Environment.read({"QUARTERDECK_CONFIG_MAP": "a/b"})


def test_a_secret_is_a_value_or_a_file_and_never_shown(home: Path) -> None:
    (home / "key").write_text("from-a-file\n")
    read = Environment.read(
        {"QUARTERDECK_OPERATOR_TOKEN": "a-token", "QUARTERDECK_BOOTSTRAP_KEY_FILE": str(home / "key")}
    )
    assert read.operator_token is not None and read.bootstrap_key is not None
    assert (read.operator_token.read(), read.bootstrap_key.read()) == ("a-token", "from-a-file")
    assert "a-token" not in repr(read)
    (home / "key").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="QUARTERDECK_BOOTSTRAP_KEY_FILE"):
        read.bootstrap_key.read()
    with pytest.raises(ValueError, match="set only one of QUARTERDECK_OPERATOR_TOKEN"):
        Environment.read({"QUARTERDECK_OPERATOR_TOKEN": "a", "QUARTERDECK_OPERATOR_TOKEN_FILE": "b"})


def test_a_user_without_a_home_is_told_which_folder_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenShift runs pods as users that no system knows."""

    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(ValueError, match="QUARTERDECK_STATE must be set"):
        Environment.read({})
    folders = {"QUARTERDECK_STATE": "/state", "QUARTERDECK_CACHE": "/cache"}
    assert Environment.read(folders).state == Path("/state")


@pytest.mark.parametrize("name", ["QUARTERDECK_REDIS_URL", "QUARTERDECK_DATABASE_URL"])
def test_a_url_with_a_password_can_come_from_a_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "url").write_text("redis://:secret@redis:6379/0\n")
    settings = Environment.read({f"{name}_FILE": str(tmp_path / "url")})
    assert "redis://:secret@redis:6379/0" in (settings.redis_url, settings.database_url)
    with pytest.raises(ValueError, match=f"set only one of {name} and {name}_FILE"):
        Environment.read({f"{name}_FILE": str(tmp_path / "url"), name: "redis://other"})
    with pytest.raises(ValueError, match=f"{name}_FILE: "):
        Environment.read({f"{name}_FILE": str(tmp_path / "none")})
