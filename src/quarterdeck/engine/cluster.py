"""Ray: started here or joined, and queried for the state of Serve's replicas.

A local Ray is bounded: it gets this process's cores, a small object store (nothing large passes through it: requests go
directly to the replicas' ports), no dashboard, no usage report, and the state folder instead of /tmp.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray._private import parameter, services
from ray.serve.context import _get_global_client

from quarterdeck.engine.machine import Machine
from quarterdeck.engine.ray_start import agent_ports
from quarterdeck.settings.engine import EngineDoorSettings

LOOPBACK = "127.0.0.1"

_OBJECT_STORE_BYTES = 100 << 20


class Cluster:
    """A Ray cluster with Serve. Every method blocks: the door calls them in a thread."""

    def __init__(self, settings: EngineDoorSettings, folder: Path | None) -> None:
        """`folder`: for a local Ray's sessions, empty and inside a private one. None: Ray is joined."""
        self._join = settings.ray_address
        self._listen = settings.host if self._join is None else "0.0.0.0"  # noqa: S104  # from other nodes, too
        self.is_ours = self._join is None
        self.host = LOOPBACK if settings.is_loopback else None
        """The host in replicas' URLs; None: each node's own address."""
        self._folder = folder
        self.address = ""
        """The address at which the deployer connects."""

    def start(self, machine: Machine) -> None:
        if self._join is not None:
            ray.init(address=self._join, namespace="serve", log_to_driver=False, configure_logging=False)
        else:
            self._start_local(machine)
        self.address = ray.get_runtime_context().gcs_address
        # Port 0: Serve's own proxy is not used here, and 8000 is the gateway's.
        serve.start(proxy_location="HeadOnly", http_options={"host": self._listen, "port": 0 if self.is_ours else 8000})

    def with_gpus(self, machine: Machine) -> Machine:
        """Return the machine with Ray's GPUs: in a cluster, those of all its nodes."""
        gpus = machine.gpus if self.is_ours else int(ray.cluster_resources().get("GPU", 0))
        return replace(machine, gpus=gpus)

    def details(self) -> dict[str, Any]:
        """Return Serve's applications, deployments, replicas and their ports."""
        details: dict[str, Any] = _get_global_client().get_serve_details()
        return details

    def delete(self, app: str) -> None:
        """Have Serve end an application; returns before it has. No error where there is none."""
        _get_global_client().delete_apps([app], blocking=False)

    def nodes(self) -> list[dict[str, Any]]:
        """Return Ray's nodes, with the ports of their metrics."""
        nodes: list[dict[str, Any]] = ray.nodes()
        return nodes

    def _start_local(self, machine: Machine) -> None:
        if self._folder is None:
            raise RuntimeError("a local Ray needs a folder")
        start_local(machine, self._folder, self.host)


def start_local(machine: Machine, folder: Path, host: str | None) -> None:
    """Start a Ray that ends with this process. `folder`: for its sessions. `host`: where it listens; None: on the
    network."""
    with agent_ports(parameter, services, host or "0.0.0.0"):  # noqa: S104
        ray.init(
            address="local",
            namespace="serve",
            num_cpus=max(1, len(machine.cores)),
            num_gpus=machine.gpus if machine.has_gpu_engine else 0,
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            **({"_node_ip_address": host} if host else {}),
            _temp_dir=str(folder),
        )
