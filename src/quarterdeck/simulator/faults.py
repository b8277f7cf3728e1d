"""Faults: what goes wrong, for which request.

A request's faults come from its `x-fault` header, or from the queue that `POST /admin/faults` fills, or by chance
(`failure-injection-rate`), in this order. A fault is `kind`, or `kind=argument`; several are parted by `;`.
"""

from collections import Counter, deque
from dataclasses import dataclass
from random import Random
from typing import Any

from quarterdeck.simulator.config import SimulatorConfig
from quarterdeck.simulator.errors import Refusal, invalid, too_many
from quarterdeck.simulator.options import seconds

STATUSES = {"429": "retry-after seconds", "500": "", "502": "", "503": "retry-after seconds"}

AT_TOKEN = {
    "cut": "the connection closes in the middle of a chunk",
    "reset": "the connection is reset (RST)",
    "stall": "silence; a second argument ends it: stall=5,2s",
    "error": "an error event in the stream, then [DONE]",
    "garbage": "a data line that is not JSON; then the stream goes on",
    "crash": "the process ends as by the out-of-memory killer (137)",
    "huge": "one event of so many bytes more; a second argument: huge=0,1000000",
}
"""Their first argument is the number of tokens that came before; none is 0."""

WHOLE = {
    "refused": "the connection closes without an answer; refused=2s: the port is closed for so long",
    "slow": "the first byte comes so much later; slow=500ms",
    "malformed": "a plain answer is cut JSON with a right content-length; a stream has a garbage event",
    "wrong-length": "a plain answer's content-length says more than comes",
    "wrong-usage": "usage counts are off; wrong-usage=1000 adds so many",
    "no-usage": "no usage, asked or not",
    "negative-usage": "usage counts below zero",
}

LLM_D = {
    "rate_limit": "429",
    "server_error": "503",
    "invalid_api_key": "401",
    "context_length": "400-context",
    "invalid_request": "400",
    "model_not_found": "404",
}
"""llm-d-inference-sim's failure types, in our words."""

KINDS = frozenset({*STATUSES, *AT_TOKEN, *WHOLE, *LLM_D.values()})


@dataclass(frozen=True, slots=True)
class Fault:
    kind: str
    token: int = 0
    value: float | None = None


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


def refusal(faults: Faults, context: int) -> Refusal | None:
    """The error answer that one of the faults asks for."""
    if fault := faults.get("429"):
        return too_many("Too many requests (simulated)", 1 if fault.value is None else fault.value)
    for kind in ("500", "502", "503"):
        if fault := faults.get(kind):
            headers = () if fault.value is None else ((b"retry-after", f"{fault.value:g}".encode()),)
            return Refusal(
                "The engine failed (simulated)", status=int(kind), type="InternalServerError", headers=headers
            )
    if "401" in faults:
        return Refusal("Incorrect API key provided (simulated).", status=401, type="AuthenticationError")
    if "404" in faults:
        return Refusal("The model does not exist (simulated).", status=404, type="NotFoundError", param="model")
    if "400" in faults:
        return invalid("Invalid request (simulated).")
    if "400-context" in faults:
        return invalid(f"This model's maximum context length is {context} tokens (simulated).", "input_tokens")
    return None


class FaultBook:
    """The queue, the chance, and how many were done."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311  (repeatable is what is asked for)
        self._queue: deque[tuple[str, Faults]] = deque()
        self.done: Counter[str] = Counter()

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
        """This request's faults. Raises ValueError for a header that names none."""
        if header:
            return parse(header)
        if self._queue:
            return self._queue.popleft()[1]
        if config.failure_injection_rate and self._random.random() * 100 < config.failure_injection_rate:
            return parse(self._random.choice(config.failure_types or sorted(LLM_D)))
        return NONE

    def count(self, kind: str) -> None:
        self.done[kind] += 1

    def told(self) -> dict[str, Any]:
        return {"queued": self.queued(), "done": dict(self.done)}
