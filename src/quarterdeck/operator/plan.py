"""What to write so that a Model's objects are as they should be. Pure.

Only fields that are desired are compared: what a service mesh, an autoscaler or the API server's defaults add is not
ours. A hash of what was applied, kept as an annotation, tells when a field is not desired any more.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from quarterdeck.kube.names import HASH_ANNOTATION
from quarterdeck.operator.manifests import Key, Manifest, annotations_of, is_deleting, key_of

_ORDER = ("ServiceAccount", "PersistentVolumeClaim", "ConfigMap", "Service", "PodDisruptionBudget")
"""Kinds that others refer to are applied first; the rest follows, by name."""
_LIST_KEYS = ("name", "mountPath", "containerPort", "port", "topologyKey", "ip", "uid")
"""Fields by which the API server merges lists of objects."""
_SUFFIXES = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}


@dataclass(frozen=True, slots=True)
class Plan:
    """Writes, in order: `apply`, then `delete`."""

    apply: tuple[Manifest, ...] = ()
    delete: tuple[Manifest, ...] = ()
    wait: tuple[Key, ...] = field(default=())
    """Objects that are being deleted and are applied once they are gone."""

    @property
    def is_empty(self) -> bool:
        return not self.apply and not self.delete


def make_plan(
    desired: Iterable[Manifest], observed: Iterable[Manifest], settled: Mapping[Key, str] | None = None
) -> Plan:
    """Compare what should be with what is.

    `settled` holds, by object, the `view_hash` with which the API server answered the last apply. It differs from what
    was applied if the server or an admission webhook rewrites a value; applying again would change nothing.
    """
    settled = settled or {}
    seen = {key_of(each): each for each in observed}
    wanted = [stamped(each) for each in desired]
    apply: list[Manifest] = []
    wait: list[Key] = []
    for manifest in wanted:
        key = key_of(manifest)
        live = seen.get(key)
        if live is not None and is_deleting(live):
            wait.append(key)
        elif live is None or not is_applied(manifest, live, settled.get(key)):
            apply.append(manifest)
    kept = {key_of(each) for each in wanted}
    delete = [each for key, each in seen.items() if key not in kept and not is_deleting(each)]
    return Plan(tuple(sorted(apply, key=_rank)), tuple(sorted(delete, key=_rank, reverse=True)), tuple(wait))


def stamped(manifest: Manifest) -> Manifest:
    """Return the manifest with its hash as an annotation."""
    metadata = dict(manifest["metadata"])
    annotations = {**(metadata.get("annotations") or {})}
    annotations.pop(HASH_ANNOTATION, None)
    bare = {**manifest, "metadata": {**metadata, "annotations": annotations}}
    metadata["annotations"] = {**annotations, HASH_ANNOTATION: hash_of(bare)}
    return {**manifest, "metadata": metadata}


def hash_of(value: object) -> str:
    """A short hash that does not depend on the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_applied(desired: Manifest, live: Manifest, settled: str | None = None) -> bool:
    """Whether `live` has every field of `desired` (stamped), and none that only an earlier apply had."""
    if annotations_of(live).get(HASH_ANNOTATION) != annotations_of(desired)[HASH_ANNOTATION]:
        return False
    return is_subset(desired, live) or (settled is not None and view_hash(desired, live) == settled)


def view_hash(desired: Manifest, live: Manifest) -> str:
    """A hash of the fields of `live` that `desired` has."""
    return hash_of(_view(desired, live))


def is_subset(desired: Any, live: Any) -> bool:
    """Whether every value of `desired` is in `live`. Lists of objects are matched by their merge key; quantities by
    value (`1000m` is `1`); a value that is None, empty or false may be missing."""
    if isinstance(desired, dict):
        if not isinstance(live, dict):
            return not desired and live is None
        return all(is_subset(value, live.get(name)) for name, value in desired.items())
    if isinstance(desired, list):
        if not isinstance(live, list):
            return not desired and live is None
        if (key := _list_key(desired)) is not None:
            by_key = {item.get(key): item for item in live if isinstance(item, dict)}
            return all(is_subset(item, by_key.get(item[key])) for item in desired)
        return len(desired) == len(live) and all(map(is_subset, desired, live))
    if live is None:
        return desired is None or desired is False or desired == "" or desired == 0
    if type(desired) is type(live) and desired == live:
        return True
    return _is_same_quantity(desired, live)


def _view(desired: Any, live: Any) -> Any:
    if isinstance(desired, dict) and isinstance(live, dict):
        return {name: _view(value, live.get(name)) for name, value in desired.items()}
    if isinstance(desired, list) and isinstance(live, list):
        if (key := _list_key(desired)) is not None:
            by_key = {item.get(key): item for item in live if isinstance(item, dict)}
            return [_view(item, by_key.get(item[key])) for item in desired]
        return live
    return live


def _list_key(items: list[Any]) -> str | None:
    if not items or not all(isinstance(item, dict) for item in items):
        return None
    for key in _LIST_KEYS:
        values = [item.get(key) for item in items]
        if None not in values and len({str(value) for value in values}) == len(values):
            return key
    return None


def _is_same_quantity(one: Any, other: Any) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return False
    first, second = quantity(one), quantity(other)
    return first is not None and first == second


def quantity(value: Any) -> Decimal | None:
    """Parse a Kubernetes quantity (`500m`, `1.5Gi`, `2e3`, 4); None if it is none."""
    if isinstance(value, int | float):
        return Decimal(str(value))
    if not isinstance(value, str) or not value or len(value) > 40:
        return None
    try:
        if value[-2:] in _BINARY:
            return Decimal(value[:-2]) * Decimal(1024) ** _BINARY[value[-2:]]
        if value[-1] in _SUFFIXES:
            return Decimal(value[:-1]).scaleb(_SUFFIXES[value[-1]])
        number = Decimal(value)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _rank(manifest: Manifest) -> tuple[int, str, str]:
    kind, name = key_of(manifest)
    return (_ORDER.index(kind) if kind in _ORDER else len(_ORDER), kind, name)
