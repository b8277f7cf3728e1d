"""Lets a local Ray start on a busy machine.

A Ray node starts two agents, Python processes that import for a few seconds on an idle machine and for half a minute on
a busy one. Its raylet waits 15 s for the ports that they choose, a constant, then aborts. With ports that are chosen
here it does not wait. `ray.init` has no argument for them, and the raylet's flag for one of them is not passed on (Ray
2.60.0, to which the engine's environment is pinned). Ray's other waits have variables (`engine/ray_variables.py`).
"""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

_PORTS = ("metrics_agent_port", "dashboard_agent_listen_port", "runtime_env_agent_port", "metrics_export_port")


@contextmanager
def agent_ports(parameter: Any, services: Any, host: str) -> Iterator[None]:
    """While it is entered, a Ray that is started gets ports for its agents.

    `parameter`, `services`: the modules of that name in `ray._private`. `host`: where the agents listen.
    """
    ports = dict(zip(_PORTS, free_ports(host, len(_PORTS)), strict=True))
    parameters, start_process = parameter.RayParams, services.start_ray_process

    def parameters_with_ports(*args: Any, **kwargs: Any) -> Any:
        return parameters(*args, **{**kwargs, **ports})

    def start_process_with_port(command: list[str], process_type: str, *args: Any, **kwargs: Any) -> Any:
        if process_type == "raylet":
            command = [*command, f"--dashboard_agent_listen_port={ports['dashboard_agent_listen_port']}"]
        return start_process(command, process_type, *args, **kwargs)

    parameter.RayParams, services.start_ray_process = parameters_with_ports, start_process_with_port
    try:
        yield
    finally:
        parameter.RayParams, services.start_ray_process = parameters, start_process


def free_ports(host: str, count: int) -> list[int]:
    """Ports that are free now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((host, 0))
        return [each.getsockname()[1] for each in sockets]
