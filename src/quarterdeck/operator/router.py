"""From an event of the API server to the objects that are reconciled because of it."""

from collections.abc import Callable

from quarterdeck.kube.names import MODEL_LABEL
from quarterdeck.operator.cache import ObjectCache
from quarterdeck.operator.demand import SERVICE_NAME
from quarterdeck.operator.event_log import EventLog
from quarterdeck.operator.manifests import CUSTOM, Key, Manifest, labels_of, name_of

_CUSTOM = frozenset(kind.name for kind in CUSTOM)


class Router:
    """`add` takes the key of an object to reconcile, `publish` is called when the configuration may have changed,
    `on_gateways` when the gateways' addresses have."""

    def __init__(
        self,
        cache: ObjectCache,
        events: EventLog,
        *,
        gateway_service: str,
        config_map: str,
        add: Callable[[Key], None],
        publish: Callable[[], None],
        on_gateways: Callable[[], None],
    ) -> None:
        self._cache, self._events = cache, events
        self._gateway_service, self._config_map = gateway_service, config_map
        self._add, self._publish, self._on_gateways = add, publish, on_gateways

    def take(self, type: str | None, manifest: Manifest) -> None:
        """A watch's event: the object is there, or (DELETED) gone."""
        kind = manifest["kind"]
        if kind == "Event":
            if type != "DELETED":
                self._take_event(manifest)
        elif not self.concerns(manifest):
            return
        elif type == "DELETED":
            self._cache.remove(manifest)
        else:
            self._cache.put(manifest)

    def concerns(self, manifest: Manifest) -> bool:
        """Whether the operator keeps the object."""
        kind = manifest["kind"]
        if kind in _CUSTOM or kind == "PersistentVolumeClaim":
            return True
        if kind == "EndpointSlice":
            return labels_of(manifest).get(SERVICE_NAME) == self._gateway_service
        if kind == "ConfigMap" and name_of(manifest) == self._config_map:
            return True
        return MODEL_LABEL in labels_of(manifest)

    def on_change(self, manifest: Manifest) -> None:
        """The cache's callback: an object has changed, or is gone."""
        kind, name = manifest["kind"], name_of(manifest)
        if kind in _CUSTOM:
            self._publish()
            self._add(Key(kind, name))
        elif kind == "EndpointSlice":
            self._on_gateways()
        elif kind == "ConfigMap" and name == self._config_map:
            self._publish()
        if model := labels_of(manifest).get(MODEL_LABEL):
            self._add(Key("Model", model))

    def _take_event(self, event: Manifest) -> None:
        uid = self._events.put(event)
        about = self._cache.of_uid(uid) if uid else None
        if about is not None and about["kind"] not in _CUSTOM and (model := labels_of(about).get(MODEL_LABEL)):
            self._add(Key("Model", model))
