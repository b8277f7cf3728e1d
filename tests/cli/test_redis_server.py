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


def test_the_wheels_redis_runs_here() -> None:
    binary = redis_server.wheel_binary()
    assert binary is not None
    assert redis_server.version_of(binary)
