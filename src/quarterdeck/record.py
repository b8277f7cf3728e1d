"""One record per request: the truth that ledger row, span, usage and metrics are projected from.

`inference/metering` fills it on the hot path (ids and times, nothing that costs), the settle script appends it to the
stream `ledger:{org}`, the worker turns it into a row (`store/ledger`) and a span (`telemetry/spans`). It stands at the
bottom of the map so that every floor may read it and no projection needs another.
"""

import math
from decimal import Context, Decimal
from typing import Literal

import msgspec

_EXACT = Context(prec=80)

MIRROR = "mirror"
"""Key, team and tag of a mirrored request, which is on nobody's limits or budget. No key has such an id (`key_…`)."""

Status = Literal["ok", "error", "cancelled", "lost"]
"""ok: answered whole. error: engine or we failed. cancelled: the caller hung up. lost: the gateway died meanwhile."""

UsageSource = Literal["engine", "counted", "estimated", "none"]
"""Who counted: the engine; its tokenizer over the text received; a guess by bytes; nobody, as none came."""

CacheState = Literal["off", "hit", "miss", "bypass"]


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One call to one endpoint. Times are Unix seconds."""

    endpoint: str
    started: float
    ended: float
    status: int = 0
    """The HTTP status it answered with; 0: none came."""
    error: str | None = None
    """Our error code for what went wrong; None: nothing did."""


class RequestRecord(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Everything that is known of a request when it is over. Times are Unix seconds, money is exact dollars."""

    id: str
    """`req_` + 32 hex digits; the digits are the trace id."""
    org: str
    team: str
    key: str
    """The key's id; never the key."""
    key_name: str = ""
    operation: str
    """chat, completions, embeddings, tokenize, detokenize, score: gen_ai's operation follows from it."""
    model: str
    """The name the caller used, after aliases: a model or an adapter."""
    endpoint: str = ""
    """The endpoint that gave the answer; empty: none did."""
    route: str = ""
    """The public name it came by, where that is a route's; empty: the model's own name."""
    prompt_version: str | None = None
    stream: bool = False
    started: float
    first_token: float | None = None
    """When the first piece of the answer was in hand. None: none came."""
    ended: float
    status: Status
    http_status: int
    error_code: str | None = None
    finish_reason: str | None = None
    response_id: str | None = None
    input_tokens: int = 0
    """All prompt tokens, cached ones included."""
    cached_tokens: int = 0
    """Those of `input_tokens` that the engine's prefix cache held."""
    output_tokens: int = 0
    """All generated tokens, reasoning included."""
    reasoning_tokens: int = 0
    """Those of `output_tokens` that were reasoning."""
    usage_source: UsageSource = "none"
    price_version: str = ""
    price_input: Decimal = Decimal(0)
    """$ per 10⁶ tokens at the time, here and below."""
    price_cached: Decimal = Decimal(0)
    price_output: Decimal = Decimal(0)
    cost: Decimal = Decimal(0)
    """$, exact, unrounded."""
    cache: CacheState = "off"
    cache_age: float | None = None
    """Seconds since the answer that a hit repeats was made."""
    saved: Decimal = Decimal(0)
    """$ that a hit would have cost at the engine."""
    resumed: int = 0
    """How often another endpoint went on with the answer."""
    user: str | None = None
    """The request's `user` (or `safety_identifier`), as the caller gave it."""
    session: str | None = None
    """`metadata.session_id` of the request, if any."""
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    priority: int = 0
    tags: tuple[str, ...] = ()
    """The key's, for reports."""
    attempts: tuple[Attempt, ...] = ()

    @property
    def trace_id(self) -> str:
        """32 hex digits, W3C's trace id."""
        return self.id.removeprefix("req_")


def encode(record: RequestRecord) -> bytes:
    """JSON, so that an operator can read the stream with redis-cli."""
    return msgspec.json.encode(record)


def decode(data: bytes) -> RequestRecord:
    """The reverse of `encode`. Raises msgspec.DecodeError on anything else."""
    return msgspec.json.decode(data, type=RequestRecord)


def microdollars(amount: Decimal) -> int:
    """Dollars in whole 10⁻⁶ $, rounded up: as budgets count each request, while the record keeps the exact amount."""
    return math.ceil(amount.scaleb(6, _EXACT))
