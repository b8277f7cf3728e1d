"""Ray, which runs in the engine's environment only."""

from typing import Any

from quarterdeck.engine.machine import Machine


class FakeRay:
    is_ours = True
    host: str | None = "127.0.0.1"
    address = "127.0.0.1:1"

    def __init__(self) -> None:
        self.starts = 0

    def start(self, machine: Machine) -> None:
        self.starts += 1

    def with_gpus(self, machine: Machine) -> Machine:
        return machine

    def details(self) -> dict[str, Any]:
        return {}

    def delete(self, app: str) -> None: ...

    def nodes(self) -> list[dict[str, Any]]:
        """As `ray.nodes()` of Ray 2.60 has them, the members that matter."""
        return [
            {"NodeID": "78c6128772f0bc08", "Alive": True, "NodeManagerAddress": "10.0.0.7", "MetricsExportPort": 8080},
            {"NodeID": "9a", "Alive": False, "NodeManagerAddress": "10.0.0.8", "MetricsExportPort": 8080},
            {"NodeID": "9b", "Alive": True, "NodeManagerAddress": "10.0.0.9", "MetricsExportPort": 0},
        ]
