"""Latency objectives (SLO) of a run: what a profile sets and what samples are judged by."""

from pydantic import BaseModel, ConfigDict


class Slo(BaseModel):
    """Latency objectives in milliseconds. An objective that is not set is not checked."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    ttft_ms: float | None = None
    """From the scheduled start of the request to its first token."""
    itl_ms: float | None = None
    """The mean gap between two tokens of a stream."""
    total_ms: float | None = None
    """From the scheduled start of the request to its end."""
