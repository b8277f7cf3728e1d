"""A local Ray gets ports for its agents. `tests/e2e/test_slow_agents.py` starts a real one."""

from types import SimpleNamespace
from typing import Any

import pytest

from quarterdeck.engine.ray_start import agent_ports, free_ports


def ray_modules() -> tuple[Any, Any, list[tuple[list[str], str]]]:
    """Ray's `parameter` and `services`, and the processes that were started."""
    started: list[tuple[list[str], str]] = []

    def start_ray_process(command: list[str], process_type: str, fate_share: bool) -> None:
        started.append((command, process_type))

    parameter = SimpleNamespace(RayParams=lambda **kwargs: kwargs)
    return parameter, SimpleNamespace(start_ray_process=start_ray_process), started


def test_agents_get_ports_and_the_raylet_knows_all_of_them() -> None:
    parameter, services, started = ray_modules()
    with agent_ports(parameter, services, "127.0.0.1"):
        ports = parameter.RayParams(num_cpus=2, metrics_export_port=None)
        services.start_ray_process(["raylet", "--head"], "raylet", True)
        services.start_ray_process(["gcs_server"], "gcs_server", True)
    assert ports.pop("num_cpus") == 2
    assert set(ports) == {
        "metrics_agent_port",
        "dashboard_agent_listen_port",
        "runtime_env_agent_port",
        "metrics_export_port",
    }
    assert len(set(ports.values())) == 4
    listen = f"--dashboard_agent_listen_port={ports['dashboard_agent_listen_port']}"
    assert started == [(["raylet", "--head", listen], "raylet"), (["gcs_server"], "gcs_server")]


def test_rays_own_functions_are_restored() -> None:
    parameter, services, _ = ray_modules()
    own = parameter.RayParams, services.start_ray_process
    with pytest.raises(OSError), agent_ports(parameter, services, "127.0.0.1"):
        raise OSError
    assert (parameter.RayParams, services.start_ray_process) == own


def test_free_ports_are_different_ones() -> None:
    assert len(set(free_ports("127.0.0.1", 20))) == 20
