"""A running request: the state that the steps of the pipeline share.

Apart from `call.py`, which everything below the pipeline imports: this module imports the cache, the meter and the
router in turn.
"""

import time
from collections.abc import Awaitable, Callable

import msgspec

from quarterdeck.accounting.commit import Note
from quarterdeck.inference.cache.answers import Lookup
from quarterdeck.inference.cache.entry import Entry
from quarterdeck.inference.call import Head, Headers
from quarterdeck.inference.capture.capture import Capture
from quarterdeck.inference.engine.client import EngineAnswer
from quarterdeck.inference.estimation import Estimate
from quarterdeck.inference.metering.meter import Meter
from quarterdeck.inference.request import InferenceRequest
from quarterdeck.inference.routing.selection import Choice, Selection


class Call(msgspec.Struct, eq=False):
    """Made once a request is admitted, done with once it is settled."""

    head: Head
    request: InferenceRequest
    body: bytes
    """The body for the engine."""
    meter: Meter
    reserved: Estimate
    selection: Selection
    lookup: Lookup | None
    """None: the model's answers are not cached."""
    found: Entry | None
    """The cached answer that admission found."""
    headers: Headers
    """Headers of the answer besides its own: rate limits, the cache."""
    is_local: bool
    """Admitted without Redis."""
    weights: str = ""
    """What identifies the weights at the endpoint that was called last. Empty: not known."""
    caps_others: bool = False
    """Endpoints other than vLLM are sent a limit: neither the request nor the contexts of all models have one."""
    held: int = 0
    """Money that budgets hold for it, in 10⁻⁶ $."""
    capture: Capture | None = None
    """Its input and output. None: they are not captured."""
    opens: Callable[[Choice, float], Awaitable[EngineAnswer]] | None = None
    """Opens an answer of audio or images at an endpoint, until the loop's time. None: the request is of text."""
    attempt: float | None = None
    """Start of the running attempt, Unix seconds. None: no attempt is running."""

    def note(self) -> Note:
        """What the worker needs to settle the call if this gateway dies now."""
        return Note(self.meter.note(time.time()), self.head.principal.scope_set.noted)
