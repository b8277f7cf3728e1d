"""How a Langfuse 4 server interprets a span, re-implemented from its rules: the oracle for exported spans.

For each field, keys are in the server's order; the first one present wins. It must not import `telemetry/traces`, which
it checks.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

_TYPES = {"span", "generation", "event", "embedding", "agent", "tool", "chain", "retriever", "guardrail", "evaluator"}
_OF_OPERATION = {
    "chat": "GENERATION",
    "text_completion": "GENERATION",
    "completion": "GENERATION",
    "generate_content": "GENERATION",
    "generate": "GENERATION",
    "embeddings": "EMBEDDING",
    "execute_tool": "TOOL",
    "invoke_agent": "AGENT",
    "create_agent": "AGENT",
}
_MODEL_KEYS = (
    "langfuse.observation.model.name",
    "gen_ai.response.model",
    "ai.model.id",
    "gen_ai.request.model",
    "llm.response.model",
    "llm.model_name",
    "model",
)
_CACHE_READ = ("cache_read.input_tokens", "cache_read_input_tokens", "cache_read_tokens", "details.cache_read_tokens")
_OPENAI_USAGE = {
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "prompt_tokens_details",
    "completion_tokens_details",
}

Attributes = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Observation:
    """The fields of a row of `events_full` that tests use."""

    trace_id: str
    id: str
    parent_id: str | None
    type: str
    name: str
    model: str | None
    model_parameters: dict[str, Any]
    usage: dict[str, int]
    cost: dict[str, Decimal]
    """Empty: the server computes the price itself."""
    user_id: str | None
    session_id: str | None
    tags: list[str]
    trace_name: str | None
    environment: str
    prompt: tuple[str, int] | None
    level: str
    status_message: str | None
    completion_start_time: float | None
    """Unix seconds. None: the server shows no time to first token."""
    start: float
    end: float
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def total_cost(self) -> Decimal:
        """The cost of the observation as shown by the server."""
        if "total" in self.cost:
            return self.cost["total"]
        return sum((self.cost[k] for k in ("input", "output") if k in self.cost), Decimal(0))

    @property
    def total_usage(self) -> int:
        """The given total, or the sum of all buckets, which therefore must not overlap."""
        return self.usage.get("total", sum(value for key, value in self.usage.items() if key != "total"))


def observation_of(
    *,
    trace_id: str,
    span_id: str,
    parent_id: str | None,
    name: str,
    start_ns: int,
    end_ns: int,
    status_code: int,
    status_message: str,
    attributes: Attributes,
    resource: Attributes,
) -> Observation:
    """Apply the rules to a decoded span."""
    kind = _type(attributes)
    return Observation(
        trace_id=trace_id,
        id=span_id,
        parent_id=parent_id,
        type=kind,
        name=_first(attributes, ("gen_ai.tool.name", "logfire.msg", "ai.toolCall.name", "ai.operationId")) or name,
        model=_model(attributes),
        model_parameters=_parameters(attributes),
        usage=_usage(attributes),
        cost=_cost(attributes),
        user_id=_first(attributes, ("langfuse.user.id", "user.id")),
        session_id=_first(attributes, ("langfuse.session.id", "session.id", "gen_ai.conversation.id")),
        tags=_tags(attributes),
        trace_name=_first(attributes, ("langfuse.trace.name",)),
        environment=_environment(attributes, resource),
        prompt=_prompt(attributes, kind),
        level=_first(attributes, ("langfuse.observation.level",)) or ("ERROR" if status_code == 2 else "DEFAULT"),
        status_message=_first(attributes, ("langfuse.observation.status_message",)) or status_message or None,
        completion_start_time=_completion_start(attributes, start_ns),
        start=start_ns / 1e9,
        end=end_ns / 1e9,
        metadata=_metadata(attributes),
    )


def _first(attributes: Attributes, keys: Iterable[str]) -> Any:
    return next((attributes[key] for key in keys if attributes.get(key) not in (None, "")), None)


def _type(attributes: Attributes) -> str:
    given = str(attributes.get("langfuse.observation.type", "")).lower()
    if given in _TYPES:
        return given.upper()
    if operation := _OF_OPERATION.get(attributes.get("gen_ai.operation.name", "")):
        return operation
    if _first(attributes, ("gen_ai.tool.name", "gen_ai.tool.call.id")) is not None:
        return "TOOL"
    if _first(attributes, _MODEL_KEYS) is not None:
        return "GENERATION"
    return "SPAN"


def _counts_nothing(attributes: Attributes) -> bool:
    return attributes.get("gen_ai.operation.name") in ("invoke_agent", "agent_step")


def _model(attributes: Attributes) -> str | None:
    return None if _counts_nothing(attributes) else _first(attributes, _MODEL_KEYS)


def _parameters(attributes: Attributes) -> dict[str, Any]:
    if (given := _json_object(attributes.get("langfuse.observation.model.parameters"))) is not None:
        return given
    prefix = "gen_ai.request."
    return {k.removeprefix(prefix): v for k, v in attributes.items() if k.startswith(prefix) and k != prefix + "model"}


def _usage(attributes: Attributes) -> dict[str, int]:
    if _counts_nothing(attributes):
        return {}
    given = attributes.get("langfuse.observation.usage_details")
    if given is not None and not isinstance(given, str):
        return {}
    if (details := _json_object(given)) is not None:
        if {"prompt_tokens", "completion_tokens"} <= details.keys() <= _OPENAI_USAGE:
            raise AssertionError("OpenAI's usage shape: the server would convert it; we give buckets")
        return {key: n for key, n in details.items() if type(n) is int and n >= 0}
    return _usage_of_gen_ai(attributes)


def _usage_of_gen_ai(attributes: Attributes) -> dict[str, int]:
    prefix = "gen_ai.usage."
    given = {k.removeprefix(prefix): v for k, v in attributes.items() if k.startswith(prefix) and k != prefix + "cost"}
    cached = _first(given, _CACHE_READ) or 0
    reasoning = given.get("reasoning.output_tokens", 0)
    usage: dict[str, int] = {}
    if (n := _first(given, ("prompt_tokens", "input_tokens", "prompt"))) is not None:
        usage["input"] = n - cached
    if (n := _first(given, ("completion_tokens", "output_tokens", "completion"))) is not None:
        usage["output"] = n - reasoning
    if (n := _first(given, ("total_tokens", "total"))) is not None:
        usage["total"] = n
    if cached:
        usage["input_cached_tokens"] = cached
    if reasoning:
        usage["output_reasoning_tokens"] = reasoning
    return usage


def _cost(attributes: Attributes) -> dict[str, Decimal]:
    if _counts_nothing(attributes):
        return {}
    details = _json_object(attributes.get("langfuse.observation.cost_details"))
    if details is not None:
        assert all(type(n) in (int, Decimal) for n in details.values()), f"a cost must be a JSON number: {details}"
        return {key: Decimal(n) for key, n in details.items()}
    cost = _first(attributes, ("gen_ai.usage.cost", "llm.cost.total"))
    return {} if cost is None else {"total": Decimal(str(cost))}


def _tags(attributes: Attributes) -> list[str]:
    given = _first(attributes, ("langfuse.trace.tags", "langfuse.tags"))
    if isinstance(given, str):
        given = json.loads(given) if given.startswith("[") else [tag.strip() for tag in given.split(",")]
    return list(given or [])


def _environment(attributes: Attributes, resource: Attributes) -> str:
    keys = ("langfuse.environment", "deployment.environment.name", "deployment.environment")
    given = str(_first(attributes, keys) or _first(resource, keys) or "default")
    assert given == given.lower() and not given.startswith("langfuse"), f"the server refuses environment {given!r}"
    return given


def _prompt(attributes: Attributes, kind: str) -> tuple[str, int] | None:
    name = _first(attributes, ("langfuse.observation.prompt.name", "langfuse.prompt.name"))
    version = _first(attributes, ("langfuse.observation.prompt.version", "langfuse.prompt.version"))
    return (name, int(version)) if kind == "GENERATION" and name and version is not None else None


def _completion_start(attributes: Attributes, start_ns: int) -> float | None:
    """`gen_ai.response.time_to_first_chunk` is not read by the server."""
    if (given := attributes.get("langfuse.observation.completion_start_time")) is not None:
        return datetime.fromisoformat(given).timestamp()
    if (milliseconds := attributes.get("ai.response.msToFirstChunk")) is not None:
        return float(start_ns / 1e9 + milliseconds / 1e3)
    return None


def _metadata(attributes: Attributes) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for prefix in ("langfuse.metadata", "langfuse.trace.metadata", "langfuse.observation.metadata"):
        metadata |= _json_object(attributes.get(prefix)) or {}
        metadata |= {k.removeprefix(prefix + "."): v for k, v in attributes.items() if k.startswith(prefix + ".")}
    return metadata


def _json_object(text: Any) -> dict[str, Any] | None:
    if not isinstance(text, str):
        return None
    try:
        value = json.loads(text, parse_float=Decimal)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
