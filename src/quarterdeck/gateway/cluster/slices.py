"""EndpointSlices as endpoints. Pure.

A Service has many slices: a hundred addresses each, one set per address family, and while an address moves from one to
another it is in both or in none. A pod is one endpoint, whatever the slices. What they don't say, such as the model's
public name, is in the operator's index of engines.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import msgspec

from quarterdeck.inference.endpoints.endpoint import EndpointSpec, State
from quarterdeck.kube.api import Metadata
from quarterdeck.kube.compiled import EngineEntry, EngineIndex
from quarterdeck.kube.names import (
    MODEL_LABEL,
    REVISION_LABEL,
    ROLE_DOOR,
    ROLE_ENGINE,
    ROLE_LABEL,
    ROLE_REPLICA,
    SERVICE_NAME_LABEL,
    service_names,
)
from quarterdeck.kube.replica_addresses import is_replica
from quarterdeck.net.sockets import http_url

PORT_NAME = "http"
_OF_REPLICA_SET = re.compile(r"(.+)-[bcdfghjklmnpqrstvwxz2456789]{5}")
"""A pod's name without what makes it unique."""
_MAX_WHOLE_NAME = 62
"""Kubernetes cuts longer names, and with them the hash of the pod's template."""
_UNAVAILABLE = {"Failed": "its engine can't start.", "Suspended": "it is suspended."}


class Conditions(msgspec.Struct, frozen=True):
    """None: not known, which Kubernetes has consumers read as ready and as not terminating."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class TargetRef(msgspec.Struct, frozen=True):
    name: str = ""
    uid: str = ""


class SliceEndpoint(msgspec.Struct, frozen=True, rename={"target_ref": "targetRef"}):
    addresses: list[str] = []
    conditions: Conditions = Conditions()
    target_ref: TargetRef | None = None


class SlicePort(msgspec.Struct, frozen=True):
    name: str | None = None
    port: int | None = None


class EndpointSlice(msgspec.Struct, frozen=True, rename={"address_type": "addressType"}):
    """`discovery.k8s.io/v1`, as far as it is used here."""

    metadata: Metadata
    address_type: str = "IPv4"
    endpoints: list[SliceEndpoint] | None = None
    ports: list[SlicePort] | None = None


class Owner(NamedTuple):
    """What a slice belongs to: a Model object, or one revision of it."""

    object: str
    revision: str | None

    def __str__(self) -> str:
        return self.object if self.revision is None else f"{self.object}@{self.revision}"


@dataclass(frozen=True, slots=True)
class Address:
    """A pod that listens."""

    owner: Owner
    pod: str
    """Its name; its address where it is no pod."""
    url: str
    state: State


class Entries:
    """The index of engines, by what slices are labelled with."""

    def __init__(self, index: EngineIndex) -> None:
        self.by_owner = {Owner(each.object, each.revision): each for each in index.engines.values()}

    def of(self, owner: Owner) -> EngineEntry | None:
        """The entry of the revision, or that of all revisions."""
        return self.by_owner.get(owner) or self.by_owner.get(Owner(owner.object, None))


def addresses(slices: Iterable[EndpointSlice], role: str) -> list[Address]:
    """The pods in slices of this role, in a stable order. Of a pod's addresses one counts, IPv4 before IPv6."""
    found: dict[tuple[str, str], tuple[tuple[bool, bool], Address]] = {}
    for each in sorted(slices, key=lambda each: each.metadata.name):
        if (owner := _owner(each, role)) is None or not (port := _port(each)):
            continue
        name = owner.object
        # A Service that selects all pods of a Model has those of a canary as well: the one with a revision is right.
        rank = (owner.revision is not None, each.address_type == "IPv4")
        for endpoint in each.endpoints or ():
            if not endpoint.addresses:
                continue
            host = endpoint.addresses[0]
            pod = endpoint.target_ref.name if endpoint.target_ref and endpoint.target_ref.name else host
            key = (name, endpoint.target_ref.uid if endpoint.target_ref and endpoint.target_ref.uid else pod)
            url = http_url(host, port)
            state = _state(endpoint.conditions)
            known = found.get(key)
            if known is not None:
                state = _merged(known[1].state, state)
                if known[0] >= rank:
                    rank_now, address = known
                    found[key] = (rank_now, Address(address.owner, address.pod, address.url, state))
                    continue
            found[key] = (rank, Address(owner, pod, url, state))
    return [address for _, address in found.values()]


def engine_specs(slices: Iterable[EndpointSlice], entries: Entries) -> list[EndpointSpec]:
    """The endpoints of engines. One whose Model the index does not know yet is left out."""
    specs = []
    for address in addresses(slices, ROLE_ENGINE):
        if (entry := entries.of(address.owner)) is not None:
            specs.append(_spec(address, entry))
    return specs


def doors(slices: Iterable[EndpointSlice]) -> dict[str, Address]:
    """The engine doors by URL."""
    return {each.url: each for each in addresses(slices, ROLE_DOOR)}


def replica_hosts(slices: Iterable[EndpointSlice]) -> dict[str, frozenset[str]]:
    """Addresses of the pods in which replicas of a Ray cluster may listen, by Model object. An older operator has none
    listed."""
    found: dict[str, frozenset[str]] = {}
    for each in slices:
        if (owner := _owner(each, ROLE_REPLICA)) is not None:
            hosts = (host for endpoint in each.endpoints or () for host in endpoint.addresses)
            found[owner.object] = found.get(owner.object, frozenset()).union(hosts)
    return found


def is_foreign(listed: EndpointSpec, hosts: Collection[str] | None) -> bool:
    """Whether the URL that a door lists is that of no pod of its Model."""
    return bool(listed.url) and not is_replica(listed.url, hosts)


def of_door(listed: EndpointSpec, door: Address, entry: EngineEntry) -> EndpointSpec:
    """An endpoint as its engine door lists it, under the Model's public name."""
    state: State = "draining" if door.state == "draining" and listed.state == "ready" else listed.state
    names = dict(listed.engine_names)
    if listed.model != entry.model:
        names |= {name: name for name in listed.adapters - names.keys()}
        names[entry.model] = listed.model
    return replace(
        listed,
        id=f"{door.owner}/{listed.id}",
        model=entry.model,
        state=state,
        engine_names=names,
        version=listed.version or entry.version,
    )


def placeholders(entries: Entries, present: Collection[str]) -> list[EndpointSpec]:
    """Models that are not `present`: no pod answers for them. They have no address; they are listed with their state,
    and requests wait for them or are refused with the reason."""
    specs = []
    for owner, entry in entries.by_owner.items():
        if entry.model in present:
            continue
        state: State = "idle" if entry.state == "Zero" else "starting"
        specs.append(
            EndpointSpec(
                id=str(owner),
                model=entry.model,
                url="",
                state=state,
                adapters=frozenset(entry.adapters),
                task=entry.task,
                detail=entry.detail,
                problem=_reason(entry),
                max_running=entry.max_running,
            )
        )
    return specs


def unavailable(entries: Entries) -> dict[str, str]:
    """Why no endpoint will become ready, by model and adapter."""
    reasons: dict[str, str] = {}
    for entry in entries.by_owner.values():
        for name, reason in entry.failed_adapters.items():
            reasons[name] = reason or "it can't be loaded."
        if reason := _reason(entry):
            reasons |= dict.fromkeys((entry.model, *entry.adapters), reason)
    return reasons


def _reason(entry: EngineEntry) -> str:
    return (entry.detail or _UNAVAILABLE[entry.state]) if entry.state in _UNAVAILABLE else ""


def _spec(address: Address, entry: EngineEntry) -> EndpointSpec:
    names = {public: each.engine_name for public, each in entry.adapters.items() if address.pod in each.pods}
    adapters = frozenset(names)
    # A canary that begins or ends renames the model (`name`, `name@revision`) while requests are under way.
    public = entry.model.partition("@")[0]
    other = public if entry.model != public else f"{public}@{address.owner.revision}"
    other_names = frozenset({other} if address.owner.revision is not None else ())
    own = entry.engine_name or entry.model
    names |= {name: own for name in (entry.model, *other_names) if name != own}
    return EndpointSpec(
        id=f"{address.owner.object}/{address.pod}",
        model=entry.model,
        url=address.url,
        state=address.state,
        adapters=adapters,
        other_names=other_names,
        engine_names=names,
        failed_adapters=entry.failed_adapters,
        version=_version(address.pod, entry.version),
        max_running=entry.max_running,
        task=entry.task,
        detail=entry.detail if address.state == "starting" else "",
    )


def _version(pod: str, version: str) -> str:
    """What identifies the weights behind a pod. The entry's version is that of the Model as it is now; while it is
    rolled out its old pods have other weights, so the ReplicaSet, which a pod's name begins with, counts as well."""
    if len(pod) > _MAX_WHOLE_NAME:
        return f"{version}/{pod}"
    found = _OF_REPLICA_SET.fullmatch(pod)
    return f"{version}/{found[1]}" if found else version


def _owner(found: EndpointSlice, role: str) -> Owner | None:
    """What a slice of this role belongs to. None: it is another's.

    The labels of a slice are those of its Service, which many may create; the operator's own Services are
    recognised by their names, which it takes by force. Kubernetes' `edit` role may not create EndpointSlices
    themselves.
    """
    labels = found.metadata.labels or {}
    name = labels.get(MODEL_LABEL)
    if labels.get(ROLE_LABEL) != role or not name or found.address_type not in ("IPv4", "IPv6"):
        return None
    if labels.get(SERVICE_NAME_LABEL) not in _service_names(name):
        return None
    return Owner(name, labels.get(REVISION_LABEL))


_service_names = lru_cache(maxsize=4096)(service_names)


def _port(found: EndpointSlice) -> int | None:
    ports = [each for each in found.ports or () if each.port]
    named = [each for each in ports if each.name == PORT_NAME]
    return next((each.port for each in named or ports), None)


def _state(conditions: Conditions) -> State:
    if conditions.terminating:
        return "draining"
    return "starting" if conditions.ready is False else "ready"


def _merged(one: State, other: State) -> State:
    """Of a pod that is in two slices: one of them may be older. A pod that terminates never comes back."""
    for state in ("draining", "ready"):
        if state in (one, other):
            return state
    return "starting"
