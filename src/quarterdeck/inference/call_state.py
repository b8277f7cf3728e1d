"""One request under way: what the steps of the pipeline hand to one another."""

import time

import msgspec

from quarterdeck.accounting.admission import Note
from quarterdeck.accounting.principal import Principal
from quarterdeck.inference.cache.answers import Lookup
from quarterdeck.inference.cache.entry import Entry
from quarterdeck.inference.call import Head
from quarterdeck.inference.metering.meter import Meter
from quarterdeck.inference.preparation import Estimate
from quarterdeck.inference.routing.router import Selection
from quarterdeck.protocol.stream_usage import includes_usage

Headers = tuple[tuple[bytes, bytes], ...]


class Call(msgspec.Struct, eq=False):
    """Made when the request is understood; over when it is settled."""

    head: Head
    meter: Meter
    body: bytes
    """As the engine shall have it."""
    reserved: Estimate
    selection: Selection
    lookup: Lookup | None
    """What the cache has to do with it; None: its model's answers are not kept."""
    is_stream: bool
    found: Entry | None = None
    """The kept answer that came with its admission."""
    headers: Headers = ()
    """Those that an answer carries beside its own: rate limits, the cache."""
    attempt: float | None = None
    """When the attempt under way began, Unix seconds. None: none is."""
    is_local: bool = False
    """Admitted without Redis."""

    @property
    def shows_usage(self) -> bool:
        """Whether the client asked for usage in its stream."""
        return includes_usage(self.meter.request)

    def speak_for(self, principal: Principal) -> None:
        """Its key as it has been read since. Only before it is admitted: what was reserved is settled where it was."""
        self.head = self.meter.head = msgspec.structs.replace(self.head, principal=principal)

    def note(self) -> Note:
        """What another needs to settle it, should this gateway die now."""
        return Note(self.meter.note(time.time(), self.body), self.head.principal.counters.noted)
