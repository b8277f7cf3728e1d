"""What the API server holds, as far as the operator has seen it.

Watches fill it, the answers of the operator's own writes go into it at once, and a list of all objects corrects it
from time to time (a watch that was cut off misses deletions). A reconcile reads nothing else, so that one that changes
nothing calls nothing.
"""

from collections.abc import Callable, Iterable, Iterator

from quarterdeck.kube.names import MODEL_LABEL
from quarterdeck.operator.manifests import Key, Manifest, controller_uid, key_of, labels_of, uid_of, version_of


class ObjectCache:
    """Objects of one namespace by key, by the Model that their label names, and by uid."""

    def __init__(self, *, on_change: Callable[[Manifest], None] = lambda manifest: None) -> None:
        self.on_change = on_change
        """Called with each object that has changed, or that is gone."""
        self._objects: dict[Key, Manifest] = {}
        self._by_model: dict[str, set[Key]] = {}
        self._by_uid: dict[str, Key] = {}
        self._gone: dict[Key, int] = {}
        """Versions at which objects were deleted: a late answer of an earlier write must not bring them back."""

    def get(self, kind: str, name: str) -> Manifest | None:
        return self._objects.get(Key(kind, name))

    def of_kind(self, kind: str) -> Iterator[Manifest]:
        return (manifest for key, manifest in self._objects.items() if key.kind == kind)

    def of_model(self, model: str) -> list[Manifest]:
        """Objects with the label of a model, in a fixed order."""
        return [self._objects[key] for key in sorted(self._by_model.get(model, ()))]

    def of_uid(self, uid: str) -> Manifest | None:
        key = self._by_uid.get(uid)
        return self._objects.get(key) if key is not None else None

    def put(self, manifest: Manifest, *, is_own: bool = False) -> bool:
        """Take a version of an object, unless a later one was seen. Returns whether it is news. `is_own`: the answer
        of a write of ours, which is no change to react to."""
        key, version = key_of(manifest), version_of(manifest)
        known = self._objects.get(key)
        if known is not None and uid_of(known) == uid_of(manifest) and version_of(known) >= version > 0:
            return False
        if version and version <= self._gone.get(key, 0):
            return False
        self._gone.pop(key, None)
        self._index(key, known, _slim(manifest))
        if not is_own:
            self.on_change(manifest)
        return True

    def remove(self, manifest: Manifest) -> bool:
        """An object is gone. Ignored if another one of the same name was seen since."""
        key = key_of(manifest)
        known = self._objects.get(key)
        if known is None or uid_of(known) != uid_of(manifest):
            return False
        self._gone[key] = max(version_of(manifest), version_of(known))
        while len(self._gone) > 10_000:
            self._gone.pop(next(iter(self._gone)))
        self._index(key, known, None)
        self.on_change(known)
        return True

    def correct(self, kind: str, listed: Iterable[Manifest], seen_before: Iterable[Key]) -> int:
        """Take a list of all objects of a kind. Those of `seen_before` (known when the list was asked for) that are
        not in it are gone. Returns how many corrections were made."""
        corrections, names = 0, set[Key]()
        for manifest in listed:
            names.add(key_of(manifest))
            corrections += self.put(manifest)
        for key in seen_before:
            if key.kind == kind and key not in names and (known := self._objects.get(key)) is not None:
                corrections += self.remove(known)
        return corrections

    def keys(self, kind: str) -> list[Key]:
        return [key for key in self._objects if key.kind == kind]

    def _index(self, key: Key, before: Manifest | None, after: Manifest | None) -> None:
        if before is not None and (model := labels_of(before).get(MODEL_LABEL)):
            keys = self._by_model.get(model, set())
            keys.discard(key)
            if not keys:
                self._by_model.pop(model, None)
        if before is not None:
            self._by_uid.pop(uid_of(before), None)
        if after is None:
            self._objects.pop(key, None)
            return
        self._objects[key] = after
        self._by_uid[uid_of(after)] = key
        if model := labels_of(after).get(MODEL_LABEL):
            self._by_model.setdefault(model, set()).add(key)


def owned_by(uid: str, manifests: Iterable[Manifest]) -> list[Manifest]:
    return [manifest for manifest in manifests if controller_uid(manifest) == uid]


def _slim(manifest: Manifest) -> Manifest:
    """Without `managedFields`, which is half of an object's size and is read by no rule here."""
    metadata = {name: value for name, value in manifest["metadata"].items() if name != "managedFields"}
    return {**manifest, "metadata": metadata}
