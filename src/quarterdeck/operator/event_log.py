"""Events that the API server reports about engines' pods and the objects around them: the last ones of each object."""

from collections import OrderedDict
from collections.abc import Iterable

from quarterdeck.operator.manifests import Manifest, name_of, uid_of

MAX_OBJECTS = 5000
MAX_EVENTS = 20
"""Of one object. A crash loop repeats its events under their names, with a count."""


class EventLog:
    """Bounded. By the uid of the object that an event is about."""

    def __init__(self) -> None:
        self._events: OrderedDict[str, OrderedDict[str, Manifest]] = OrderedDict()

    def put(self, event: Manifest) -> str:
        """Keep an event. Returns the uid of its object; empty if it has none."""
        uid: str = (event.get("involvedObject") or {}).get("uid") or ""
        if not uid:
            return ""
        events = self._events.setdefault(uid, OrderedDict())
        events[name_of(event)] = event
        events.move_to_end(name_of(event))
        while len(events) > MAX_EVENTS:
            events.popitem(last=False)
        self._events.move_to_end(uid)
        while len(self._events) > MAX_OBJECTS:
            self._events.popitem(last=False)
        return uid

    def about(self, objects: Iterable[Manifest]) -> list[Manifest]:
        """Events of these objects."""
        return [event for each in objects for event in self._events.get(uid_of(each), {}).values()]
