"""The engine door of a Ray cluster that KubeRay started: lists the replicas, and drains them when the cluster ends.

It runs beside the head and deploys nothing. What is served it reads from Serve (`deployed_app_config`), so it has no
configuration of its own and a restart of it changes nothing.

watch    once or twice a second: Serve's details, and the adapters of each replica
drain    all endpoints are "draining", from the pod's `preStop` until the pod ends
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import ValidationError

from quarterdeck.engine.endpoints import DeployedModel, EndpointRow, endpoint_rows, remembered_urls
from quarterdeck.errors import EngineError
from quarterdeck.kube.serve_application import IMPORT_PATH, ServeArguments

log = logging.getLogger(__name__)

_POLL_S = 0.5
_READY_POLL_S = 1.0
_MARK = "@"
"""In an adapter's engine name, between the public name and the hash of its content."""


class Serve(Protocol):
    """The state of Serve. Raises EngineError."""

    async def details(self) -> dict[str, Any]: ...


class Replicas(Protocol):
    """What a replica says about itself."""

    async def active_requests(self, url: str) -> int:
        """How many requests run or wait; 0 if it does not answer."""
        ...

    async def adapters(self, url: str) -> list[str]:
        """The engine's names of its adapters. Raises EngineError."""
        ...


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What the Serve configuration says of the model."""

    deployed: DeployedModel
    has_adapters: bool


class LoadedAdapters:
    """The adapters of each replica, as it lists them itself."""

    def __init__(self) -> None:
        self._loaded: dict[str, dict[str, str]] = {}

    def loaded(self, replica: str) -> Mapping[str, str]:
        return self._loaded.get(replica, {})

    def failures(self, model: str, replica: str) -> Mapping[str, str]:
        """None: the operator loads adapters, and its ModelAdapters say why one is missing."""
        return {}

    def record(self, replica: str, engine_names: list[str]) -> None:
        self._loaded[replica] = {name.partition(_MARK)[0]: name for name in engine_names}

    def keep(self, replicas: set[str]) -> None:
        """Forget other replicas."""
        self._loaded = {name: loaded for name, loaded in self._loaded.items() if name in replicas}


class ObservingDoor:
    """The state behind the control port. Built once, in `__main__`."""

    def __init__(self, serve: Serve, replicas: Replicas) -> None:
        self._serve = serve
        self._replicas = replicas
        self._details: dict[str, Any] = {}
        self._urls: dict[str, str] = {}
        self._adapters = LoadedAdapters()
        self._is_draining = False
        self.is_healthy = False
        """Whether Serve answers."""

    def endpoints(self) -> list[EndpointRow]:
        models = [each.deployed for each in served_models(self._details)]
        return endpoint_rows(models, self._details, self._urls, self._adapters, is_draining=self._is_draining)

    def nodes_in_use(self) -> set[str]:
        """Addresses of the pods with a replica in any state. The operator ends no other worker."""
        return {
            str(replica["node_ip"])
            for app in self._details.get("applications", {}).values()
            for deployment in app["deployments"].values()
            for replica in deployment["replicas"]
            if replica.get("node_ip")
        }

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await self.poll()
            rows = self.endpoints()
            is_steady = bool(rows) and all(row.state == "ready" for row in rows)
            await asyncio.sleep(_READY_POLL_S if is_steady else _POLL_S)

    async def poll(self) -> None:
        """Read Serve's details once. While it is away, the known replicas stay listed: requests go to their own
        ports."""
        try:
            self._details = await self._serve.details()
        except EngineError as error:
            if self.is_healthy:
                log.warning("%s", error.message)
            self.is_healthy = False
            return
        self.is_healthy = True
        self._urls = remembered_urls(self._details, self._urls, None)
        await self._read_adapters()

    async def drain(self) -> int:
        """Report draining from now on. Returns how many requests are active in the cluster."""
        if not self._is_draining:
            log.info("draining")
        self._is_draining = True
        urls = {row.url for row in self.endpoints() if row.url}
        return sum(await asyncio.gather(*map(self._replicas.active_requests, urls)))

    async def _read_adapters(self) -> None:
        if not any(model.has_adapters for model in served_models(self._details)):
            return
        self._adapters.keep(set(self._urls))
        await asyncio.gather(*(self._read(name, url) for name, url in self._urls.items()))

    async def _read(self, replica: str, url: str) -> None:
        try:
            self._adapters.record(replica, await self._replicas.adapters(url))
        except EngineError as error:  # it starts or ends: what it listed last holds
            log.debug("%s: %s", replica, error.message)


def served_models(details: Mapping[str, Any]) -> list[ServedModel]:
    """Read the models from Serve's details. Applications of others are left out."""
    models = []
    for name, app in details.get("applications", {}).items():
        config = app.get("deployed_app_config") or {}
        if config.get("import_path") != IMPORT_PATH:
            continue
        try:
            arguments = ServeArguments.model_validate(config.get("args") or {})
        except ValidationError:
            continue  # the application has failed for the same reason
        deployments = config.get("deployments") or [{}]
        limit = int(deployments[0].get("max_ongoing_requests") or 1)
        detail = "building the application" if app.get("status") == "DEPLOYING" else ""
        deployed = DeployedModel(arguments.model, name, arguments.task, limit, detail)
        models.append(ServedModel(deployed, arguments.has_adapters))
    return models
