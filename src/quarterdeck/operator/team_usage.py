"""Keys and spend of Teams in their status, for who reads `kubectl get teams`. The database and Redis hold the truth.

Read from a gateway's admin API and written when it changed, at most once a minute for each Team.
"""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from quarterdeck.kube.names import API_VERSION, MANAGER_USAGE
from quarterdeck.kube.resources.object import InvalidObjectError
from quarterdeck.kube.resources.team import Team, TeamUsage
from quarterdeck.operator.cache import ObjectCache
from quarterdeck.operator.cluster import Cluster, ClusterError
from quarterdeck.operator.gateway_client import GatewayClient, GatewayError
from quarterdeck.operator.manifests import Manifest, is_deleting

log = logging.getLogger(__name__)

EVERY_SECONDS = 60.0
PAUSE_SECONDS = 0.05
"""Between two Teams: hundreds of them are no burst for a gateway."""


def usage_of(team: dict[str, Any]) -> TeamUsage:
    """The usage in an answer of `GET /admin/teams/{team}`. Pure. Raises ValueError for another answer."""
    try:
        budget = team["budget_status"]
        if budget is None:
            return TeamUsage(keys=team["keys"])
        start = budget["period_start"]
        begun = None if start is None else datetime.fromtimestamp(start, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return TeamUsage(keys=team["keys"], spent=budget["spent"], left=budget["left"], period_start=begun)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a team: {error!r}") from error


class TeamUsageWriter:
    """Keeps `status.usage` of the namespace's Teams up to date while its operator leads."""

    def __init__(
        self,
        cluster: Cluster,
        cache: ObjectCache,
        gateways: GatewayClient,
        namespace: str,
        *,
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        self._cluster, self._cache, self._gateways, self._namespace = cluster, cache, gateways, namespace
        self._every_seconds = every_seconds
        self._is_failing = False

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            try:
                await self.write_all()
                self._is_failing = False
            except (GatewayError, ClusterError) as error:
                if not self._is_failing:
                    log.warning("usage of Teams is not up to date: %s", error)
                self._is_failing = True
            await asyncio.sleep(self._every_seconds)

    async def write_all(self) -> None:
        """Write what has changed. Raises GatewayError and ClusterError."""
        for manifest in self._cache.of_kind(Team.kind):
            if not is_deleting(manifest):
                await self._write(manifest)
                await asyncio.sleep(PAUSE_SECONDS)

    async def _write(self, manifest: Manifest) -> None:
        try:
            team = Team.parse(manifest)
        except InvalidObjectError:  # its conditions say so
            return
        try:
            usage = usage_of(await self._gateways.call("GET", f"/admin/teams/{quote(team.team_name, safe='')}"))
        except GatewayError as error:
            if error.status == 404:  # no gateway has it yet
                return
            raise
        except ValueError as error:
            raise GatewayError(200, str(error)) from error
        if usage == team.status.usage:
            return
        body = {
            "apiVersion": API_VERSION,
            "kind": Team.kind,
            "metadata": {"name": team.metadata.name, "namespace": self._namespace, "uid": manifest["metadata"]["uid"]},
            "status": {"usage": usage.model_dump(mode="json", exclude_none=True)},
        }
        try:
            written = await self._cluster.apply(body, self._namespace, status=True, manager=MANAGER_USAGE)
        except ClusterError as error:
            if error.status in (404, 409):  # it was deleted meanwhile
                return
            raise
        self._cache.put(written, is_own=True)
