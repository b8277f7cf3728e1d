"""Request records for tests: an ordinary one, and a hypothesis strategy for all possible ones."""

from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from quarterdeck import ids
from quarterdeck.record import Attempt, RequestRecord


def a_record(**changes: Any) -> RequestRecord:
    """The record of a successful streamed chat, with a new id. `changes` are fields."""
    fields: dict[str, Any] = {
        "id": ids.RequestIds().next(),
        "org": "default",
        "team": "default",
        "key": "key_1",
        "key_name": "laptop",
        "operation": "chat",
        "model": "smollm2",
        "endpoint": "smollm2#1",
        "route": "fast",
        "stream": True,
        "started": 1_800_000_000.125,
        "first_token": 1_800_000_000.625,
        "ended": 1_800_000_001.75,
        "status": "ok",
        "http_status": 200,
        "finish_reason": "stop",
        "response_id": "chatcmpl-1",
        "input_tokens": 30,
        "cached_tokens": 16,
        "output_tokens": 11,
        "reasoning_tokens": 3,
        "usage_source": "engine",
        "price_version": "abcdef012345",
        "price_input": Decimal("0.15"),
        "price_cached": Decimal("0.075"),
        "price_output": Decimal("0.6"),
        "cost": Decimal("0.0000099"),
        "cache": "off",
        "resumed": 1,
        "user": "u-1",
        "session": "s-1",
        "max_tokens": 64,
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 7,
        "priority": 3,
        "tags": ("batch", "ci"),
        "attempts": (
            Attempt("smollm2#0", 1_800_000_000.125, 1_800_000_000.25, 0, "engine_unavailable"),
            Attempt("smollm2#1", 1_800_000_000.25, 1_800_000_001.75, 200),
        ),
    }
    return RequestRecord(**(fields | changes))


_names = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=40)
_times = st.floats(min_value=1e9, max_value=4e9)
_tokens = st.integers(min_value=0, max_value=10**12)
_money = st.decimals(min_value=0, max_value=10**12, places=18, allow_nan=False)
_ratio = st.none() | st.floats(min_value=0, max_value=2)

records = st.builds(
    RequestRecord,
    id=st.builds(ids.RequestIds().next),
    org=st.just("default"),
    team=_names,
    key=_names,
    key_name=_names,
    operation=st.sampled_from(["chat", "completions", "embeddings", "score", "audio_speech"]),
    model=_names,
    endpoint=_names,
    route=_names,
    prompt=st.none() | _names,
    prompt_version=st.none() | _names,
    prompt_label=st.none() | _names,
    stream=st.booleans(),
    started=_times,
    first_token=st.none() | _times,
    ended=_times,
    status=st.sampled_from(["ok", "error", "cancelled", "lost"]),
    http_status=st.integers(100, 599),
    error_code=st.none() | _names,
    finish_reason=st.none() | _names,
    response_id=st.none() | _names,
    input_tokens=_tokens,
    cached_tokens=_tokens,
    output_tokens=_tokens,
    reasoning_tokens=_tokens,
    audio_ms=_tokens,
    characters=_tokens,
    images=_tokens,
    usage_source=st.sampled_from(["engine", "counted", "estimated", "none"]),
    price_version=_names,
    price_input=_money,
    price_cached=_money,
    price_output=_money,
    cost=_money,
    cache=st.sampled_from(["off", "hit", "miss", "bypass"]),
    cache_age=st.none() | st.floats(min_value=0, max_value=1e7),
    saved=_money,
    resumed=st.integers(0, 10),
    user=st.none() | _names,
    session=st.none() | _names,
    max_tokens=st.none() | _tokens,
    temperature=_ratio,
    top_p=_ratio,
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    priority=st.integers(0, 9),
    tags=st.lists(_names, max_size=3).map(tuple),
    attempts=st.lists(
        st.builds(
            Attempt,
            endpoint=_names,
            started=_times,
            ended=_times,
            status=st.integers(0, 599),
            error=st.none() | _names,
        ),
        max_size=3,
    ).map(tuple),
)
