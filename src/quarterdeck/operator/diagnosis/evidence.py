"""What is known of a Model's engine: pods, events and the objects around them, as the API returned them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from quarterdeck.operator.diagnosis.finding import Object, name_of, uid_of

_REVISION = "deployment.kubernetes.io/revision"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Objects of one Model. Other objects in `children` are ignored."""

    pods: Sequence[Object]
    events: Sequence[Object] = ()
    """Of the pods and children."""
    children: Sequence[Object] = ()
    """Deployments, ReplicaSets, PersistentVolumeClaims, RayClusters."""
    nodes: Sequence[Object] | None = None
    """None: the operator may not read nodes."""
    now: datetime | None = None
    """None: the time of the newest event or state is not compared with anything."""

    def of_kind(self, kind: str) -> list[Object]:
        return [child for child in self.children if child.get("kind") == kind]

    def claims(self) -> dict[str, Object]:
        return {name_of(claim): claim for claim in self.of_kind("PersistentVolumeClaim")}

    def about(self, item: Object) -> list[Object]:
        """Events of an object, oldest first."""
        uid, name, kind = uid_of(item), name_of(item), item.get("kind")
        found = []
        for event in self.events:
            involved = event.get("involvedObject") or event.get("regarding") or {}
            if involved.get("uid") == uid if uid and involved.get("uid") else involved.get("name") == name:
                if kind and involved.get("kind") and involved["kind"] != kind:
                    continue
                found.append(event)
        return sorted(found, key=event_time)

    def current_pods(self) -> list[Object]:
        """Pods of the newest revision that are not being deleted; where it has none, those of all revisions."""
        alive = [pod for pod in self.pods if not (pod.get("metadata") or {}).get("deletionTimestamp")]
        newest = self.newest_replica_set()
        if newest is None:
            return alive
        owned = [pod for pod in alive if uid_of(newest) in _owners(pod)]
        return owned or alive

    def newest_replica_set(self) -> Object | None:
        sets = self.of_kind("ReplicaSet")
        return max(sets, key=_revision, default=None)


def event_time(event: Object) -> str:
    """When the event was last seen, RFC 3339."""
    return str(
        event.get("lastTimestamp")
        or (event.get("series") or {}).get("lastObservedTime")
        or event.get("eventTime")
        or event.get("firstTimestamp")
        or ""
    )


def parse_time(text: object) -> datetime | None:
    """Kubernetes' RFC 3339, with or without fractions."""
    if not isinstance(text, str) or not text:
        return None
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def matching(events: Iterable[Object], reason: str, text: str = "") -> list[Object]:
    """Events with this reason whose message contains `text`."""
    return [event for event in events if event.get("reason") == reason and text in str(event.get("message") or "")]


def _owners(pod: Object) -> set[str]:
    owners = (pod.get("metadata") or {}).get("ownerReferences") or ()
    return {str(owner.get("uid")) for owner in owners}


def _revision(replica_set: Object) -> tuple[int, str]:
    metadata = replica_set.get("metadata") or {}
    revision = (metadata.get("annotations") or {}).get(_REVISION, "0")
    return (int(revision) if str(revision).isdigit() else 0, str(metadata.get("creationTimestamp", "")))
