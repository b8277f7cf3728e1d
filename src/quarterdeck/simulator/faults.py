"""Fault injection: which faults a request has.

They come from the `x-fault` header, else from the queue that `POST /admin/faults` fills, else at random
(`failure-injection-rate`). A fault is `kind` or `kind=argument`; several are separated by `;`.
"""

from collections import Counter, deque
from dataclasses import dataclass
from random import Random
from typing import Any

from quarterdeck.simulator.config import SimulatorConfig
from quarterdeck.simulator.errors import VLLMError, invalid_request, too_many_requests
from quarterdeck.simulator.options import seconds

STATUSES = {"429": "retry-after seconds", "500": "", "502": "", "503": "retry-after seconds"}

AT_TOKEN = {
    "cut": "closes the connection in the middle of a chunk",
    "reset": "resets the connection (RST)",
    "stall": "sends nothing more; a second argument limits it: stall=5,2s",
    "error": "sends an error event in the stream, then [DONE]",
    "garbage": "sends a data line that is not JSON, then continues",
    "crash": "exits as if killed for memory (137)",
    "huge": "sends one event of a million bytes; a second argument sets the size: huge=0,1000000",
}
"""Faults at a token. The first argument is the number of tokens sent before, 0 without one."""

WHOLE = {
    "refused": "closes the connection without a response; refused=2s also closes the port for that time",
    "slow": "delays the first byte: slow=500ms",
    "malformed": "truncates the JSON, with a matching content-length; in a stream, a garbage event",
    "wrong-length": "sends a content-length larger than the body",
    "wrong-usage": "adds 1000 to the usage counts; wrong-usage=5 adds 5",
    "no-usage": "omits usage, even if requested",
    "negative-usage": "reports negative usage counts",
}

LLM_D = {
    "rate_limit": "429",
    "server_error": "503",
    "invalid_api_key": "401",
    "context_length": "400-context",
    "invalid_request": "400",
    "model_not_found": "404",
}
"""llm-d-inference-sim's failure types and the faults that they name here."""

KINDS = frozenset({*STATUSES, *AT_TOKEN, *WHOLE, *LLM_D.values()})


@dataclass(frozen=True, slots=True)
class Fault:
    kind: str
    token: int = 0
    value: float | None = None


FOREVER = 86_400.0
"""A day: a hang or a stall without a duration lasts until the client disconnects."""
HUGE_BYTES = 1_000_000
"""Size of a `huge` fault without a value."""

Faults = dict[str, Fault]
NONE: Faults = {}


def parse(text: str) -> Faults:
    """`cut=5`, `slow=500ms;429=2`. Raises ValueError."""
    found: Faults = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        kind, _, argument = part.partition("=")
        kind = LLM_D.get(kind.strip(), kind.strip())
        if kind not in KINDS:
            raise ValueError(f"unknown fault '{kind}' (known: {', '.join(sorted(KINDS))})")
        found[kind] = _fault(kind, argument.strip())
    return found


def _fault(kind: str, argument: str) -> Fault:
    if kind in AT_TOKEN:
        token, _, more = argument.partition(",")
        value = None
        if more:
            value = float(more) if kind == "huge" else seconds(more)
        return Fault(kind, int(token or 0), value)
    if not argument:
        return Fault(kind)
    if kind in ("slow", "refused"):
        return Fault(kind, value=seconds(argument))
    return Fault(kind, value=float(argument.removesuffix("s")))


def error_response(faults: Faults, context: int) -> VLLMError | None:
    """Return the error response that a fault asks for, None if none does."""
    if fault := faults.get("429"):
        return too_many_requests("Too many requests (simulated)", 1 if fault.value is None else fault.value)
    for kind in ("500", "502", "503"):
        if fault := faults.get(kind):
            headers = () if fault.value is None else ((b"retry-after", f"{fault.value:g}".encode()),)
            return VLLMError(
                "The engine failed (simulated)", status=int(kind), type="InternalServerError", headers=headers
            )
    if "401" in faults:
        return VLLMError("Incorrect API key provided (simulated).", status=401, type="AuthenticationError")
    if "404" in faults:
        return VLLMError("The model does not exist (simulated).", status=404, type="NotFoundError", param="model")
    if "400" in faults:
        return invalid_request("Invalid request (simulated).")
    if "400-context" in faults:
        return invalid_request(f"This model's maximum context length is {context} tokens (simulated).", "input_tokens")
    return None


class FaultInjector:
    """Chooses each request's faults and counts those applied (`applied`)."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311  (a seed must repeat)
        self._queue: deque[tuple[str, Faults]] = deque()
        self.applied: Counter[str] = Counter()

    def add(self, text: str, count: int = 1) -> None:
        faults = parse(text)
        if not faults:
            raise ValueError("no fault named")
        self._queue.extend((text, faults) for _ in range(count))

    def clear(self) -> None:
        self._queue.clear()

    def queued(self) -> list[str]:
        return [text for text, _ in self._queue]

    def draw(self, header: str | None, config: SimulatorConfig) -> Faults:
        """Return the next request's faults. Raises ValueError for an invalid header."""
        if header:
            return parse(header)
        if self._queue:
            return self._queue.popleft()[1]
        if config.failure_injection_rate and self._random.random() * 100 < config.failure_injection_rate:
            return parse(self._random.choice(config.failure_types or sorted(LLM_D)))
        return NONE

    def count(self, kind: str) -> None:
        self.applied[kind] += 1

    def status(self) -> dict[str, Any]:
        return {"queued": self.queued(), "done": dict(self.applied)}
