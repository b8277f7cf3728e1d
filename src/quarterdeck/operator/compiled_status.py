"""Status of the objects that are only compiled, ModelRoutes and Teams: accepted, resolved, in the configuration."""

from collections.abc import Callable
from datetime import UTC, datetime

from quarterdeck.kube.conditions import Condition, ConditionType, Reason, replaced
from quarterdeck.kube.names import API_VERSION
from quarterdeck.kube.resources.object import InvalidObjectError
from quarterdeck.kube.resources.route import ModelRoute, ModelRouteStatus
from quarterdeck.kube.resources.team import Team, TeamStatus
from quarterdeck.operator.cache import ObjectCache
from quarterdeck.operator.cluster import Cluster, ClusterError
from quarterdeck.operator.manifests import Key, Manifest, is_deleting
from quarterdeck.operator.publish import Publisher

Compiled = type[ModelRoute] | type[Team]

RESYNC_SECONDS = 300.0


def conditions_of(verdict_conditions: list[Condition], *, is_published: bool, generation: int) -> list[Condition]:
    """The conditions of an object, Ready as their summary."""
    found = list(verdict_conditions)
    is_refused = any(each.status == "False" for each in found)
    if not is_published:
        reason = Reason.PENDING if is_refused else Reason.CONFIGURATION_NOT_WRITTEN
        text = "" if is_refused else "Gateways do not have it yet."
        found.append(_condition(ConditionType.ROUTABLE, False, reason, text, generation))
    else:
        found.append(_condition(ConditionType.ROUTABLE, True, Reason.ROUTABLE, "", generation))
    first = next((each for each in found if each.status != "True"), None)
    if first is None:
        found.append(_condition(ConditionType.READY, True, Reason.READY, "", generation))
    else:
        found.append(_condition(ConditionType.READY, False, Reason(first.reason), first.message, generation))
    return found


def _condition(kind: ConditionType, is_true: bool, reason: Reason, text: str, generation: int) -> Condition:
    status = "True" if is_true else "False"
    return Condition(type=str(kind), status=status, reason=str(reason), message=text, observed_generation=generation)


def _without_usage(status: ModelRouteStatus | TeamStatus) -> ModelRouteStatus | TeamStatus:
    """`team_usage` writes it, as another field manager."""
    return status.model_copy(update={"usage": None}) if isinstance(status, TeamStatus) else status


class CompiledStatus:
    """Reconciles the status of one of these kinds."""

    def __init__(
        self,
        kind: Compiled,
        cluster: Cluster,
        cache: ObjectCache,
        publisher: Publisher,
        namespace: str,
        now: Callable[[], str] = lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    ) -> None:
        self._kind, self._cluster, self._cache, self._publisher = kind, cluster, cache, publisher
        self._namespace, self._now = namespace, now

    async def reconcile(self, name: str) -> float | None:
        """Returns the seconds until the next call, or None for an object that is gone."""
        manifest = self._cache.get(self._kind.kind, name)
        if manifest is None or is_deleting(manifest):
            return None
        generation = int(manifest["metadata"].get("generation", 0))
        verdict = self._publisher.verdict(Key(self._kind.kind, name), generation)
        if verdict is None:
            self._publisher.mark()
            return RESYNC_SECONDS
        known = self._known(manifest)
        made = conditions_of(
            verdict.conditions(refers=self._kind is ModelRoute),
            is_published=self._publisher.is_published(Key(self._kind.kind, name)),
            generation=generation,
        )
        conditions = list(known.conditions)
        for each in made:
            conditions = replaced(conditions, each, self._now())
        types = {each.type for each in made}
        status = type(known)(
            observed_generation=generation,
            conditions=tuple(each for each in conditions if each.type in types),
            message=made[-1].message,
        )
        if status != _without_usage(known):
            await self._write(name, manifest, status)
        return RESYNC_SECONDS

    def _known(self, manifest: Manifest) -> ModelRouteStatus | TeamStatus:
        try:
            return self._kind.parse(manifest).status
        except InvalidObjectError:
            return ModelRouteStatus() if self._kind is ModelRoute else TeamStatus()

    async def _write(self, name: str, manifest: Manifest, status: ModelRouteStatus | TeamStatus) -> None:
        body = {
            "apiVersion": API_VERSION,
            "kind": self._kind.kind,
            "metadata": {"name": name, "namespace": self._namespace, "uid": manifest["metadata"]["uid"]},
            "status": status.model_dump(mode="json", exclude_none=True),
        }
        try:
            self._cache.put(await self._cluster.apply(body, self._namespace, status=True), is_own=True)
        except ClusterError as error:
            if error.status not in (404, 409):  # it was deleted meanwhile
                raise
