"""Faults that simulated engines inject at random, and the outcomes that callers may see under them."""

FAULTS = [
    "429=1",
    "500",
    "503=1",
    "cut=3",
    "reset=6",
    "error=4",
    "garbage=2",
    "malformed",
    "slow=200ms",
    "no-usage",
    "stall=2",
]


MAY_BE = {
    "ok",
    "429 engine_overloaded",
    "502 engine_error",
    "503 engine_unavailable",
    "504 engine_timeout",
    "event engine_error",
    "event engine_timeout",
}
