"""What a process is told from outside, and what it does when it is told nonsense."""

from pathlib import Path

import pytest

from quarterdeck.net.redis_address import RedisAddress
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
    assert RedisAddress.parse(environment.redis_url).path == f"{folder}/redis/redis.sock"


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
    headers = {"OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Basic%20YTpi, x-a = 1=2 ,, broken"}
    assert Environment.read(headers).otlp_headers == {"authorization": "Basic YTpi", "x-a": "1=2"}


def test_no_secret_is_shown() -> None:
    environment = Environment.read({"OTEL_EXPORTER_OTLP_HEADERS": "authorization=canary", "CHAT_KEY": "canary"})
    assert "canary" not in repr(environment)
    assert environment.variables["CHAT_KEY"] == "canary"
