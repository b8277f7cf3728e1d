"""Reads what the gateways' requests need: `GET /demand` of every gateway pod.

Each gateway is asked in a loop of its own. With `wait` it answers as soon as a request begins to wait for a model
without endpoints, so that a replica is started at once and not at the next poll.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from quarterdeck.operator.http_answers import fetch
from quarterdeck.operator.manifests import Manifest, labels_of
from quarterdeck.operator.scaling import Demand

log = logging.getLogger(__name__)

WAIT_SECONDS = 1.0
"""Longest that a gateway holds the answer: how old in-flight counts may be."""
ANSWER_SECONDS = 5.0
"""Longest that an answer takes, with WAIT_SECONDS."""
MIN_SECONDS = 0.25
"""Least time between two reads of one gateway, however often requests begin to wait."""
STALE_SECONDS = 10.0
"""A gateway that did not answer for so long makes the demand incomplete."""
SERVICE_NAME = "kubernetes.io/service-name"


def gateway_addresses(slices: Iterable[Manifest], service: str, port_name: str) -> dict[str, str]:
    """URLs of a Service's addresses by pod name. Terminating gateways are included: they have requests in flight."""
    found: dict[str, str] = {}
    for each in slices:
        if labels_of(each).get(SERVICE_NAME) != service:
            continue
        ports: list[dict[str, Any]] = list(each.get("ports") or ())
        port = next((p.get("port") for p in ports if p.get("name") == port_name), None)
        if port is None and len(ports) == 1:
            port = ports[0].get("port")
        for endpoint in each.get("endpoints") or ():
            conditions = endpoint.get("conditions") or {}
            if conditions.get("serving") is False and conditions.get("ready") is not True:
                continue
            name = (endpoint.get("targetRef") or {}).get("name")
            for address in list(endpoint.get("addresses") or ())[:1]:
                host = f"[{address}]" if ":" in address else address
                found[name or address] = f"http://{host}:{port}"
    return found


@dataclass(slots=True)
class _Gateway:
    url: str
    models: Mapping[str, Any] = field(default_factory=dict)
    version: int = 0
    read_at: float | None = None
    task: asyncio.Task[None] | None = None


class DemandReader:
    """Follows gateways. `on_read` is called after each answer."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        token: str,
        on_read: Callable[[], None],
        *,
        pause_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._on_read, self._clock = client, on_read, clock
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        self._pause_seconds = pause_seconds
        self._gateways: dict[str, _Gateway] = {}

    def follow(self, addresses: Mapping[str, str]) -> None:
        """Ask these gateways from now on."""
        for name in list(self._gateways):
            if addresses.get(name) != self._gateways[name].url:
                gone = self._gateways.pop(name)
                if gone.task is not None:
                    gone.task.cancel()
        for name, url in addresses.items():
            if name not in self._gateways:
                gateway = self._gateways[name] = _Gateway(url)
                gateway.task = asyncio.get_running_loop().create_task(self._ask_forever(name, gateway))

    @property
    def count(self) -> int:
        """Gateways that are followed."""
        return len(self._gateways)

    def counters(self) -> dict[str, Mapping[str, Any]]:
        """The latest `models` of each gateway, by pod name."""
        return {name: gateway.models for name, gateway in self._gateways.items()}

    def of(self, names: Iterable[str]) -> Demand:
        """Demand for a Model's public names: its own, its revisions' (`name@revision`) and its adapters'."""
        return self.by_owner(dict.fromkeys(names, "")).get("", Demand(is_complete=self.is_complete))

    @property
    def is_complete(self) -> bool:
        """Whether every gateway has answered lately. False without a gateway: the requests are unknown then."""
        now = self._clock()
        return bool(self._gateways) and all(
            gateway.read_at is not None and now - gateway.read_at < STALE_SECONDS for gateway in self._gateways.values()
        )

    def by_owner(self, owners: Mapping[str, str]) -> dict[str, Demand]:
        """Demand by owner; `owners` gives the owner of each public name."""
        in_flight: dict[str, int] = {}
        waiting: dict[str, int] = {}
        for gateway in self._gateways.values():
            for name, counts in gateway.models.items():
                owner = owners.get(name) or owners.get(name.partition("@")[0])
                if owner is None and name not in owners:
                    continue
                owner = owner or ""
                in_flight[owner] = in_flight.get(owner, 0) + _count(counts, "in_flight")
                waiting[owner] = waiting.get(owner, 0) + _count(counts, "waiting")
        complete = self.is_complete
        return {
            owner: Demand(in_flight.get(owner, 0), waiting.get(owner, 0), complete) for owner in set(owners.values())
        }

    def close(self) -> None:
        self.follow({})

    async def _ask_forever(self, name: str, gateway: _Gateway) -> None:
        failures = 0
        while True:
            started = self._clock()
            try:
                await self._ask(gateway)
                failures = 0
                self._on_read()
            except (httpx.HTTPError, ValueError) as error:
                failures += 1
                if failures in (1, 60):
                    log.warning("gateway %s did not say its demand: %s", name, error or type(error).__name__)
            pause = self._pause_seconds if failures else MIN_SECONDS
            await asyncio.sleep(max(pause - (self._clock() - started), 0.01 if not failures else pause))

    async def _ask(self, gateway: _Gateway) -> None:
        query = {"wait": str(WAIT_SECONDS), "after": str(gateway.version)}
        answer = await fetch(
            self._client, "GET", f"{gateway.url}/demand", params=query, headers=self._headers, seconds=ANSWER_SECONDS
        )
        if not answer.is_success:
            raise ValueError(f"it answered {answer.status}")
        found = answer.json()
        models = found.get("models") if isinstance(found, dict) else None
        if not isinstance(models, dict):
            raise ValueError("the answer of /demand has no `models`")
        gateway.models, gateway.read_at = models, self._clock()
        gateway.version = found.get("version") if isinstance(found.get("version"), int) else 0


def _count(counts: Any, name: str) -> int:
    value = counts.get(name) if isinstance(counts, dict) else None
    return max(int(value), 0) if isinstance(value, int | float) else 0
