"""Whether this gateway can serve requests, and the state of its parts and models.

In a cluster, models come and go: there a gateway without any is ready, once it has a configuration and its endpoints.
Elsewhere one model must be.

Redis and the database must have been reachable once. After that an outage is reported but does not make the gateway
unready: cached keys stay valid and records go to the spool, and it would help no caller if all gateways became unready
at once. With `on_redis_down: deny` Redis is required.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from quarterdeck.errors import StorageFullError, StorageUnavailableError
from quarterdeck.gateway import catalogue
from quarterdeck.gateway.catalogue import Availability
from quarterdeck.inference.endpoints.endpoint import Endpoints
from quarterdeck.inference.routing.directory import Directory
from quarterdeck.net.redis import RedisError, RedisRefusesError, RedisUnavailableError
from quarterdeck.settings.live import Live
from quarterdeck.store.database import DatabaseUnavailableError

HELD_SECONDS = 1.0
"""How long a probe's result is reused: the route needs no key, so it must be cheap."""
PROBE_SECONDS = 1.0
AWAY = "away"


class Redis(Protocol):
    async def probe(self) -> None: ...


class Database(Protocol):
    async def ping(self) -> None: ...


class Blobs(Protocol):
    async def probe(self) -> None: ...


class Cluster(Protocol):
    """What a gateway follows in a cluster."""

    @property
    def waiting(self) -> str | None:
        """What it lacks to begin with. None: nothing."""
        ...

    @property
    def stale(self) -> str | None:
        """Why what it knows may be old. None: it is not."""
        ...


@dataclass(frozen=True, slots=True)
class Report:
    """The response of `/readyz`."""

    is_ready: bool
    status: str
    """ready, degraded (serves, but a part or a model is not ready), starting, unavailable (was ready) or draining."""
    parts: dict[str, str]
    models: dict[str, Availability]

    def as_dict(self) -> dict[str, Any]:
        models: dict[str, dict[str, object]] = {}
        for name, found in self.models.items():
            fields = {"state": found.state, "detail": found.detail, "task": found.task}
            models[name] = {key: value for key, value in fields.items() if value} | found.more()
        return {"status": self.status, "parts": self.parts, "models": models}


@dataclass(slots=True)
class Readiness:
    """Probes the stores at most once a second."""

    redis: Redis
    database: Database
    directory: Live[Directory]
    endpoints: Endpoints
    is_draining: Callable[[], bool]
    config_error: Callable[[], str | None]
    can_record: Callable[[], bool] = lambda: True
    cluster: Cluster | None = None
    """None: no cluster."""
    blobs: Blobs | None = None
    """Where files are stored. It makes no gateway unready: only requests with files need it. None: not watched."""
    spooled: Callable[[], float] = lambda: 0
    """Records that wait in the spool, as counted last."""
    clock: Callable[[], float] = time.monotonic
    _held: dict[str, str] = field(default_factory=dict)
    _until: float = 0.0
    _probing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _have_answered: bool = False
    _was_ready: bool = False
    _report: tuple[float, tuple[bool, str | None, str | None], Report] | None = None

    async def held_report(self) -> Report:
        """The last report, if it is at most HELD_SECONDS old and neither a drain nor a reload has come since: the route
        needs no key, and a report walks all models and endpoints."""
        state = (self.is_draining(), self.config_error(), None if self.cluster is None else self.cluster.waiting)
        held = self._report
        if held is None or self.clock() >= held[0] or held[1] != state:
            report = await self.report()
            held = self._report = (self.clock() + HELD_SECONDS, state, report)
        return held[2]

    async def report(self) -> Report:
        stores = await self._stores()
        if not any(stores[name].startswith(AWAY) for name in ("redis", "database")):
            self._have_answered = True
        models = self.models()
        redis_is_needed = self.directory.current.config.gateway.on_redis_down == "deny"
        can_serve = (
            self._have_answered
            and self._has_models(models)
            and not (redis_is_needed and stores["redis"] != "ready")
            and self.can_record()
        )
        error = self.config_error()
        config = "ready" if error is None else f"refused, keeping the previous one: {error.splitlines()[0]}"
        if error is None and (problems := self.directory.current.config.problems):
            config = "added models left out: " + "; ".join(problems[:3])
        parts = {**stores, "config": config, **self._cluster_parts()}
        if not self.can_record():
            parts["spool"] = "full: requests are refused, because their records could be saved nowhere"
        elif spooled := self.spooled():
            parts["spool"] = f"{spooled:.0f} records wait for Redis"
        if self.is_draining():
            return Report(False, "draining", parts, models)
        is_whole = all(state == "ready" for state in parts.values()) and all(m.is_well for m in models.values())
        self._was_ready = self._was_ready or can_serve
        if can_serve:
            status = "ready" if is_whole else "degraded"
        else:
            status = "unavailable" if self._was_ready else "starting"
        return Report(can_serve, status, parts, models)

    def _has_models(self, models: Mapping[str, Availability]) -> bool:
        if self.cluster is not None:
            return self.cluster.waiting is None
        return any(model.is_ready for model in models.values())

    def _cluster_parts(self) -> dict[str, str]:
        if self.cluster is None:
            return {}
        return {"cluster": self.cluster.waiting or self.cluster.stale or "ready"}

    def models(self) -> dict[str, Availability]:
        """Each configured model and each adapter, by its own name."""
        directory, endpoints = self.directory.current, self.endpoints.all()
        now = asyncio.get_running_loop().time()
        own = {served.name: served.model for served in catalogue.names(directory, endpoints).values()}
        return {
            name: catalogue.availability(name, endpoints, now, self.endpoints.status(model))
            for name, model in sorted(own.items())
        }

    async def _stores(self) -> dict[str, str]:
        if self.clock() >= self._until:
            async with self._probing:
                if self.clock() >= self._until:  # no other request has probed meanwhile
                    probes = {"redis": self.redis.probe, "database": self.database.ping}
                    if self.blobs is not None:
                        probes["files"] = self.blobs.probe
                    states = await asyncio.gather(*(_probe(each) for each in probes.values()))
                    self._held = dict(zip(probes, states, strict=True))
                    self._until = self.clock() + HELD_SECONDS
        return self._held


async def _probe(call: Callable[[], Awaitable[Any]]) -> str:
    """The state, with the first word of Redis' error. No more of it: the route needs no key, and an error may name
    addresses and users. The log has it whole."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await call()
    except RedisRefusesError as error:
        return f"refuses commands ({error.code})" if error.code else "refuses commands"
    except RedisUnavailableError as error:
        return f"{AWAY} ({error.code})" if error.code else AWAY
    except StorageFullError:
        return "full"
    except (RedisError, DatabaseUnavailableError, StorageUnavailableError, TimeoutError):
        return AWAY
    return "ready"
