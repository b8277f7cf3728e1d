"""The environment of Ray, set before it is imported."""

from pathlib import Path

from quarterdeck.engine.ray_variables import set_variables


def test_replicas_listen_themselves_and_at_normal_priority() -> None:
    environ: dict[str, str] = {}
    set_variables(environ, Path("/src"), is_ours=True, is_loopback=True)
    assert environ["RAY_SERVE_ENABLE_DIRECT_INGRESS"] == "1"
    assert environ["RAY_worker_niceness"] == "0"
    assert environ["PYTHONPATH"] == "/src"


def test_a_local_ray_asks_for_a_token_of_this_run() -> None:
    one: dict[str, str] = {}
    two: dict[str, str] = {}
    set_variables(one, Path("/src"), is_ours=True, is_loopback=True)
    set_variables(two, Path("/src"), is_ours=True, is_loopback=True)
    assert one["RAY_AUTH_MODE"] == "token"
    assert one["RAY_AUTH_TOKEN"] != two["RAY_AUTH_TOKEN"]


def test_a_cluster_keeps_its_own_ways_and_the_user_has_the_last_word() -> None:
    environ = {"RAY_worker_niceness": "5", "PYTHONPATH": "/a:/src"}
    set_variables(environ, Path("/src"), is_ours=False, is_loopback=False)
    assert "RAY_AUTH_MODE" not in environ
    assert environ["RAY_worker_niceness"] == "5"
    assert environ["PYTHONPATH"] == "/src:/a"


def test_modules_are_compiled_once_for_all_processes() -> None:
    environ = {"PYTHONDONTWRITEBYTECODE": "1"}
    set_variables(environ, Path("/src"), is_ours=True, is_loopback=True)
    assert "PYTHONDONTWRITEBYTECODE" not in environ
