"""One record per request: ledger row, span, usage and metrics are projections of it.

`inference/metering` fills it on the hot path (ids and times, nothing expensive), the settle script appends it to the
stream `ledger:{org}`, and the worker turns it into a row (`store/ledger`) and a trace (`telemetry/traces`). It is at
the bottom of the map so that every layer can read it and no projection needs another one.
"""

from decimal import Decimal
from typing import Literal

import msgspec

from quarterdeck.content import Level

MIRROR = "mirror"
"""Key, team and tag of mirrored requests, which count against no limit or budget. API keys' ids are `key_…`."""

Status = Literal["ok", "error", "cancelled", "lost"]
"""ok: completely answered. error: the engine or the gateway failed. cancelled: the client disconnected. lost: the
gateway died."""

UsageSource = Literal["engine", "counted", "estimated", "none"]
"""engine: reported by the engine. counted: by its tokenizer, over the received text; of audio and images, by the
gateway. estimated: from the length in bytes. none: there was no answer."""

CacheState = Literal["off", "hit", "miss", "bypass"]


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One call to one endpoint. Times are Unix seconds."""

    endpoint: str
    started: float
    ended: float
    status: int = 0
    """The HTTP status of its response. 0: there was none."""
    error: str | None = None
    """Our error code. None: it succeeded."""
    model: str = ""
    """The model it asked for. Empty: the only attempt of its request, which asked for the record's model."""


class CallerTrace(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the caller stated for the request's trace: W3C's trace context, and `langfuse_*` members of its metadata."""

    id: str = ""
    """The trace that the request belongs to, 32 hex digits. Empty: a trace of its own."""
    parent: str = ""
    """The caller's span, 16 hex digits. Empty: not stated."""
    is_sampled: bool = True
    """The caller's flag: whether it may have recorded its part of the trace."""
    state: str = ""
    """W3C's tracestate, passed on as it is."""
    name: str = ""
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = {}


class RequestRecord(msgspec.Struct, omit_defaults=True, kw_only=True):
    """All that is known of a request at its end. Times are Unix seconds, money is exact dollars."""

    id: str
    """`req_` + 32 hex digits; the digits are the trace id, unless the caller has one (`trace`)."""
    org: str
    team: str
    key: str
    """The key's id; never the key."""
    key_name: str = ""
    operation: str
    """chat, completions, embeddings, tokenize, detokenize, score, audio_speech and the like, or tool: a tool call of a
    response, whose `model` is `<server>.<tool>`. gen_ai's operation is derived from it."""
    model: str
    """The requested model or adapter, with aliases resolved."""
    endpoint: str = ""
    """The endpoint that answered. Empty: none did."""
    route: str = ""
    """The route's name, if one was requested. Empty: the model was requested by its own name."""
    prompt: str | None = None
    """The name of the prompt that was rendered. None: the request used none."""
    prompt_version: str | None = None
    """The number of its version, as text."""
    prompt_label: str | None = None
    """The label that led to the version. None: the request named the version."""
    stream: bool = False
    started: float
    first_token: float | None = None
    """When the first piece of the answer arrived. None: there was no answer."""
    ended: float
    status: Status
    http_status: int
    error_code: str | None = None
    finish_reason: str | None = None
    response_id: str | None = None
    input_tokens: int = 0
    """All prompt tokens, cached ones included."""
    cached_tokens: int = 0
    """Those of `input_tokens` that were in the engine's prefix cache."""
    output_tokens: int = 0
    """All generated tokens, reasoning included."""
    reasoning_tokens: int = 0
    """Those of `output_tokens` that were reasoning."""
    audio_ms: int = 0
    """Milliseconds of audio that was transcribed or translated."""
    characters: int = 0
    """Characters of text that was turned into speech."""
    images: int = 0
    """Images that were generated."""
    usage_source: UsageSource = "none"
    price_version: str = ""
    price_input: Decimal = Decimal(0)
    """$ per 10⁶ tokens at the time of the request, here and below."""
    price_cached: Decimal = Decimal(0)
    price_output: Decimal = Decimal(0)
    cost: Decimal = Decimal(0)
    """$, exact, unrounded."""
    cache: CacheState = "off"
    cache_age: float | None = None
    """Of a hit: the age of the cached answer, in seconds."""
    saved: Decimal = Decimal(0)
    """Of a hit: what the answer had cost, in $."""
    resumed: int = 0
    """How often another endpoint continued the answer."""
    user: str | None = None
    """The request's `safety_identifier`, or else its `user`."""
    session: str | None = None
    """The request's `metadata.session_id`."""
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    priority: int = 0
    tags: tuple[str, ...] = ()
    """The key's tags, for reports."""
    attempts: tuple[Attempt, ...] = ()
    content: Level = "off"
    """What was captured of its input and output, which travel beside the record (`content.py`)."""
    parent: str | None = None
    """The response that it was an engine call of. None: the client sent it itself."""
    admitted: float | None = None
    """When its limits and budgets had been reserved. None: not known. This and what follows is for its trace only and
    not in the ledger."""
    recalled: float | None = None
    """When the cache had answered that it has no answer, where that took more than admission itself."""
    queued: float | None = None
    """When it began to wait for a place at an endpoint. None: it did not wait."""
    trace: CallerTrace | None = None
    """None: the caller stated nothing for it."""

    @property
    def all_tags(self) -> tuple[str, ...]:
        """The key's tags, and those that the caller gave the request (`langfuse_tags`)."""
        if self.trace is None or not self.trace.tags:
            return self.tags
        return tuple(dict.fromkeys((*self.tags, *self.trace.tags)))

    @property
    def trace_id(self) -> str:
        """W3C trace id: 32 hex digits. The caller's, if it has one."""
        return (self.trace.id if self.trace is not None else "") or self.id.removeprefix("req_")

    @property
    def caller_trace_id(self) -> str | None:
        """The trace that the request continues, for the ledger. None: it has its own."""
        return None if self.trace is None else self.trace.id or None


TRACE_ONLY = ("admitted", "recalled", "queued", "trace")
"""Fields of a record that only its spans show; of `trace` the ledger has `caller_trace_id`."""


def encode(record: RequestRecord) -> bytes:
    """Encode as JSON, so that the stream can be read with redis-cli."""
    return msgspec.json.encode(record)


def decode(data: bytes) -> RequestRecord:
    """The reverse of `encode`. Raises msgspec.DecodeError on anything else."""
    return msgspec.json.decode(data, type=RequestRecord)
