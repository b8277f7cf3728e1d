"""A strategic merge patch of a pod template, as `kubectl patch` applies it.

Lists of objects are merged by the keys that Kubernetes' types state; other lists are replaced. `null` removes a field,
`$patch: delete` an item, `$patch: replace` the whole list or object, `$deleteFromPrimitiveList/…` values of a list.
"""

from collections.abc import Mapping
from typing import Any

_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "resourceClaims": "name",
    "ownerReferences": "uid",
}
"""patchMergeKey of lists in a pod template, by field name."""
_PRIMITIVE = frozenset({"finalizers"})
"""Lists of values that are merged and not replaced."""
_DELETE = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"
_RETAIN = "$retainKeys"


class PatchError(ValueError):
    """A patch that does not fit; the message names the place."""


def merged(original: Mapping[str, Any], patch: Mapping[str, Any], where: str = "podTemplatePatch") -> dict[str, Any]:
    """Return `original` with the patch applied. Raises PatchError."""
    directive = patch.get("$patch")
    if directive == "replace":
        replaced: dict[str, Any] = _clean({name: value for name, value in patch.items() if name != "$patch"})
        return replaced
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise PatchError(f"{where}: unknown directive $patch: {directive!r}")
    result = dict(original)
    if (kept := patch.get(_RETAIN)) is not None:
        if not isinstance(kept, list):
            raise PatchError(f"{where}.{_RETAIN}: must be a list")
        result = {name: value for name, value in result.items() if name in kept}
    for name, value in patch.items():
        place = f"{where}.{name}"
        if name in ("$patch", _RETAIN) or name.startswith(_ORDER):
            continue
        if name.startswith(_DELETE):
            _delete_values(result, name.removeprefix(_DELETE), value, place)
        elif name.startswith("$"):
            raise PatchError(f"{place}: unknown directive")
        elif value is None:
            result.pop(name, None)
        else:
            result[name] = _merged_value(name, result.get(name), value, place)
    return result


def _merged_value(name: str, known: Any, value: Any, where: str) -> Any:
    if isinstance(value, Mapping):
        if known is not None and not isinstance(known, Mapping):
            raise PatchError(f"{where}: is {_named(known)}, not an object")
        return merged(known or {}, value, where)
    if isinstance(value, list):
        if known is not None and not isinstance(known, list):
            raise PatchError(f"{where}: is {_named(known)}, not a list")
        if (key := _KEYS.get(name)) is not None:
            return _merged_list(known or [], value, key, where)
        if name in _PRIMITIVE:
            return [*(known or []), *(each for each in value if each not in (known or []))]
        return _clean(value)
    if isinstance(known, Mapping | list):
        raise PatchError(f"{where}: is {_named(known)}, not {_named(value)}")
    return value


def _merged_list(known: list[Any], patch: list[Any], key: str, where: str) -> list[Any]:
    items = [dict(item) for item in known if isinstance(item, Mapping)]
    for at, change in enumerate(patch):
        place = f"{where}[{at}]"
        if not isinstance(change, Mapping):
            raise PatchError(f"{place}: must be an object")
        directive = change.get("$patch")
        if directive == "replace" and len(change) == 1:
            return [_clean(each) for each in patch if each is not change]
        if key not in change:
            raise PatchError(f"{place}: has no {key!r}, by which items are merged")
        index = next((i for i, item in enumerate(items) if item.get(key) == change[key]), None)
        if directive == "delete":
            items = [item for item in items if item.get(key) != change[key]]
        elif index is None:
            items.append(merged({}, change, place))
        else:
            items[index] = merged(items[index], change, place)
    return items


def _delete_values(result: dict[str, Any], name: str, values: Any, where: str) -> None:
    if not isinstance(values, list):
        raise PatchError(f"{where}: must be a list")
    known = result.get(name)
    if isinstance(known, list):
        result[name] = [each for each in known if each not in values]


def _clean(value: Any) -> Any:
    """Without directives and nulls, for what has no original."""
    if isinstance(value, Mapping):
        return {name: _clean(each) for name, each in value.items() if not name.startswith("$") and each is not None}
    if isinstance(value, list):
        return [_clean(each) for each in value]
    return value


def _named(value: Any) -> str:
    if isinstance(value, Mapping):
        return "an object"
    return "a list" if isinstance(value, list) else f"the value {value!r}"
