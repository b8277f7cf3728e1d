"""A platform of two gateways whose every record, trace and counter is one test's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from tests.faults.mixed_requests import Caller
from tests.faults.stack import Key, Stack
from tests.phoenix import PhoenixProcess
from tests.platform import GatewayProcess
from tests.prometheus import Prometheus
from tests.telemetry.otlp_sink import OTLPSink


@dataclass
class Platform:
    stack: Stack
    second: GatewayProcess
    sink: OTLPSink
    prometheus: Prometheus
    phoenix: PhoenixProcess | None
    """A second trace backend, a real one."""
    admin: httpx.AsyncClient

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        response = await self.admin.post(path, json=dict(body))
        assert response.status_code < 300, response.text
        found: dict[str, Any] = response.json()
        return found

    async def caller(self, name: str, team: str, *, content: str, share: int, **fields: Any) -> Caller:
        """Create a key for a team."""
        made = await self.post("/admin/keys", {"name": name, "team": team, "content": content, **fields})
        key = Key(made["id"], made["key"])
        clients = []
        for gateway in (self.stack.gateway, self.second):
            client = self.stack.client(key)
            client.base_url = httpx.URL(gateway.url)
            clients.append(client)
        return Caller(name, team, content, share, key, clients)
