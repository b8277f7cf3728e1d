"""How much of a prompt an engine last had in its prefix cache, for answers that end before their usage.

Engines report cached tokens at the end of an answer only. Without this, a client that leaves a stream would pay more
for its prompt than one that reads it to the end.
"""

import hashlib
from collections import OrderedDict

from quarterdeck.inference.metering.meter import Meter
from quarterdeck.inference.request import InferenceRequest
from quarterdeck.protocol.usage import Usage

MAX_PROMPTS = 10_000
"""Prompts remembered, some 150 bytes each; the least recently used is forgotten."""
MAX_BYTES = 1024 * 1024
"""Of a body whose prompt is remembered: hashing one takes a microsecond for each KB."""
PROMPT_MEMBERS = ("messages", "prompt", "input", "tools")


class CachedPrompts:
    """The prompts of one gateway. Only models whose price has a discount for cached tokens are looked at."""

    def __init__(self, max_prompts: int = MAX_PROMPTS) -> None:
        self._max_prompts = max_prompts
        self._cached: OrderedDict[bytes, int] = OrderedDict()

    def note(self, request: InferenceRequest, meter: Meter) -> None:
        """Remember what the engine has reported."""
        usage = meter.usage
        if usage is None or meter.usage_source != "engine" or not _is_discounted(request, meter):
            return
        if not usage.cached and not self._cached:
            return
        key = _key(request, meter)
        self._cached.pop(key, None)
        if usage.cached:
            self._cached[key] = usage.cached
            if len(self._cached) > self._max_prompts:
                self._cached.popitem(last=False)

    def discount(self, request: InferenceRequest, meter: Meter) -> None:
        """Complete a usage that the gateway has counted or estimated."""
        usage = meter.usage
        if usage is None or meter.usage_source == "engine" or not self._cached or not _is_discounted(request, meter):
            return
        if cached := self._cached.get(_key(request, meter)):
            meter.usage = Usage(usage.input, min(cached, usage.input), usage.output, usage.reasoning)


def _is_discounted(request: InferenceRequest, meter: Meter) -> bool:
    rates = meter.served.rates
    return rates.cached != rates.input and len(request.body) <= MAX_BYTES


def _key(request: InferenceRequest, meter: Meter) -> bytes:
    digest = hashlib.blake2b(f"{meter.head.principal.org} {meter.served.name}".encode(), digest_size=16)
    for name in PROMPT_MEMBERS:
        if (raw := request.members.get(name)) is not None:
            digest.update(b"\0")
            digest.update(raw)
    return digest.digest()
