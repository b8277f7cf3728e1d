"""A gateway's part in a cluster: what it follows there, and whether it has what it needs to begin."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from quarterdeck.gateway.cluster.endpoints import ClusterEndpoints
from quarterdeck.kube.access import find_access
from quarterdeck.kube.api import KubeApi
from quarterdeck.kube.config_source import ConfigMapSource, source_of
from quarterdeck.net.http_client import HttpClient
from quarterdeck.settings.environment import Environment


class Cluster:
    """Made before the event loop runs, as the configuration is read then."""

    def __init__(self, api: KubeApi, source: ConfigMapSource, environment: Environment) -> None:
        self._api = api
        self.source = source
        self._environment = environment
        self._endpoints: ClusterEndpoints | None = None

    @classmethod
    def of(cls, environment: Environment) -> "Cluster | None":
        """None: the environment names no ConfigMap. Raises AccessError."""
        if environment.config_map is None:
            return None
        api = KubeApi(find_access(environment.variables, environment.namespace))
        return cls(api, source_of(api, environment, "gateway"), environment)

    def endpoints(self, client: HttpClient) -> ClusterEndpoints:
        """The source of endpoints; `client` polls engine doors."""
        saved = self._environment.state / "cluster" / "endpoints.json"
        self._endpoints = ClusterEndpoints(self._api, self.source.engines, client, saved=saved)
        return self._endpoints

    @property
    def jobs(self) -> Mapping[str, Callable[[], Coroutine[Any, Any, None]]]:
        return {"ConfigMap": self.source.run}

    @property
    def waiting(self) -> str | None:
        """What the gateway lacks to begin with. None: nothing."""
        return self.source.waiting or (None if self._endpoints is None else self._endpoints.waiting)

    @property
    def stale(self) -> str | None:
        """Why what it knows may be old. None: it is not."""
        reason = self.source.stale or (None if self._endpoints is None else self._endpoints.stale)
        return f"not followed, keeping what is known: {reason}" if reason else None

    async def close(self) -> None:
        await self._api.close()
