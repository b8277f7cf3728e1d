"""The attributes of a model's call: model, parameters, usage, cost, time to first token, prompt.

In two families: gen_ai's conventions for any backend, and Langfuse's own names. Usage and cost are always given, in
buckets that don't overlap: Langfuse sums buckets, and would count and price by itself without them.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Context, Decimal

import msgspec

from quarterdeck.money import SUM_DIGITS
from quarterdeck.record import RequestRecord
from quarterdeck.telemetry.gen_ai import OPERATIONS, PROVIDER
from quarterdeck.telemetry.traces import otlp_encoding as otlp
from quarterdeck.telemetry.traces.blocks import MOST, Blocks
from quarterdeck.telemetry.traces.prompt_numbers import PromptNumbers

CALLS = {
    # Operation: gen_ai's name for it, Langfuse's observation type.
    "chat": ("chat", "generation"),
    "completions": (OPERATIONS["completions"], "generation"),
    "embeddings": ("embeddings", "embedding"),
    "classify": ("classify", "embedding"),
    "score": ("score", "embedding"),  # not in the conventions; computed from embeddings, and priced by tokens
    # Not in the conventions either.
    **{name: (name, "generation") for name in ("audio_transcriptions", "audio_translations", "audio_speech")},
    **{name: (name, "generation") for name in ("images_generations", "images_edits", "images_variations")},
}

_MAX_DIGITS = 18  # of a number that an attribute holds: 64 bits
_EXACT = Context(prec=SUM_DIGITS)

_observation_type = otlp.text("langfuse.observation.type")
_operation_name = otlp.text("gen_ai.operation.name")
_provider_name = otlp.text("gen_ai.provider.name")
_request_model = otlp.text("gen_ai.request.model")
_response_model = otlp.text("gen_ai.response.model")
_model_name = otlp.text("langfuse.observation.model.name")
_request_stream = otlp.boolean("gen_ai.request.stream")
_temperature = otlp.double("gen_ai.request.temperature")
_top_p = otlp.double("gen_ai.request.top_p")
_max_tokens = otlp.integer("gen_ai.request.max_tokens")
_seed = otlp.integer("gen_ai.request.seed")
_model_parameters = otlp.text("langfuse.observation.model.parameters")
_finish_reasons = otlp.texts("gen_ai.response.finish_reasons")
_response_id = otlp.text("gen_ai.response.id")
_first_chunk = otlp.double("gen_ai.response.time_to_first_chunk")
_completion_start = otlp.text("langfuse.observation.completion_start_time")
_input_tokens = otlp.integer("gen_ai.usage.input_tokens")
_output_tokens = otlp.integer("gen_ai.usage.output_tokens")
_cached_tokens = otlp.integer("gen_ai.usage.cache_read.input_tokens")
_reasoning_tokens = otlp.integer("gen_ai.usage.reasoning.output_tokens")
_usage_cost = otlp.double("gen_ai.usage.cost")
_usage_details = otlp.text("langfuse.observation.usage_details")
_cost_details = otlp.text("langfuse.observation.cost_details")
_prompt_name = otlp.text("langfuse.observation.prompt.name")
_prompt_version = otlp.integer("langfuse.observation.prompt.version")


class GenerationAttributes:
    """Encodes the attributes of calls."""

    def __init__(self, prompt_numbers: PromptNumbers | None = None) -> None:
        self._prompt_numbers = prompt_numbers or PromptNumbers()
        self._models = Blocks()
        self._parameters = Blocks()
        self._prompts = Blocks()
        self._finish_reasons = Blocks()
        self._prices: dict[tuple[Decimal, Decimal, Decimal], _Prices] = {}
        self._second = 0
        self._date = ""

    def encode(self, record: RequestRecord, started: float) -> bytes:
        """`started`: when the call's span begins, in Unix seconds."""
        parts = [self._models.get((record.operation, record.model, record.stream), _model, record)]
        if record.seed is not None:  # mostly random, so that it is not seen again
            parts.append(_parameters(record))
        else:
            given = (record.temperature, record.top_p, record.max_tokens)
            parts.append(self._parameters.get(given, _parameters, record))
        if record.prompt:
            version = self._prompt_numbers.of(record)
            parts.append(self._prompts.get((record.operation, record.prompt, version), _prompt, record, version))
        if record.finish_reason:
            parts.append(self._finish_reasons.get(record.finish_reason, _finish_reason, record))
        if record.response_id is not None:
            parts.append(_response_id(record.response_id))
        if record.stream and (first := record.first_token) is not None:
            # An answer that is not streamed has no time to first token.
            parts += (_first_chunk(max(0.0, first - started)), _completion_start(self._iso(first)))
        self._add_usage(record, parts)
        return b"".join(parts)

    def _iso(self, seconds: float) -> str:
        """Unix seconds as an ISO date with three digits: what a JavaScript Date holds."""
        milliseconds = int(seconds * 1000 + 0.5)
        second, rest = divmod(milliseconds, 1000)
        if second != self._second:
            self._second, self._date = second, datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._date}.{rest:03d}Z"

    def _add_usage(self, record: RequestRecord, parts: list[bytes]) -> None:
        given, cached = record.input_tokens, record.cached_tokens
        made, reasoning = record.output_tokens, record.reasoning_tokens
        uncached, visible = given - cached, made - reasoning
        cached_bucket = f'"input_cached_tokens":{cached},' if cached else ""
        reasoning_bucket = f'"output_reasoning_tokens":{reasoning},' if reasoning else ""
        details = f'{{"input":{uncached},{cached_bucket}"output":{visible},{reasoning_bucket}"total":{given + made}}}'
        parts += (
            _input_tokens(given),
            _output_tokens(made),
            _usage_cost(float(record.cost)),
            _usage_details(details),
            _cost_details(self._cost(record, uncached, visible)),
        )
        if cached:
            parts.append(_cached_tokens(cached))
        if reasoning:
            parts.append(_reasoning_tokens(reasoning))

    def _cost(self, record: RequestRecord, uncached: int, visible: int) -> str:
        """Dollars by bucket, with the buckets of the usage, as JSON. Cost that is not by token (units of
        audio and images, hardware) has its own.

        If the tokens' prices exceed the cost (a cache hit), only the total is given.
        """
        given = (record.price_input, record.price_cached, record.price_output)
        prices = self._prices.get(given)
        if prices is None:
            if len(self._prices) >= MOST:
                self._prices.clear()
            prices = self._prices[given] = _Prices.of(*given)
        exponent = prices.exponent
        of_input, of_cached = uncached * prices.input, record.cached_tokens * prices.cached
        of_output, of_reasoning = visible * prices.output, record.reasoning_tokens * prices.output
        total = record.cost
        tokens = Decimal(of_input + of_cached + of_output + of_reasoning).scaleb(exponent, _EXACT)
        if tokens > total:
            return f'{{"total":{total}}}'
        buckets = f'"input":{of_input}e{exponent},"output":{of_output}e{exponent}'
        if of_cached:
            buckets += f',"input_cached_tokens":{of_cached}e{exponent}'
        if of_reasoning:
            buckets += f',"output_reasoning_tokens":{of_reasoning}e{exponent}'
        if tokens < total:
            other = "units" if record.audio_ms or record.characters or record.images else "hardware"
            buckets += f',"{other}":{_EXACT.subtract(total, tokens)}'
        return f'{{{buckets},"total":{total}}}'


@dataclass(frozen=True, slots=True)
class _Prices:
    """Prices of a token as whole numbers of 10**exponent dollars. JSON takes a number with an exponent as it is, and
    integers need no decimals for the buckets."""

    input: int
    cached: int
    output: int
    exponent: int

    @classmethod
    def of(cls, *prices: Decimal) -> "_Prices":
        exponent = min(int(price.as_tuple().exponent) for price in prices)
        whole = [int(price.scaleb(-exponent, _EXACT)) for price in prices]
        return cls(whole[0], whole[1], whole[2], exponent - 6)


def _model(record: RequestRecord) -> bytes:
    operation, observation = CALLS[record.operation]
    block = _observation_type(observation) + _operation_name(operation) + _provider_name(PROVIDER)
    if model := record.model:
        block += _request_model(model) + _response_model(model) + _model_name(model)
    return block + _request_stream(record.stream)


def _parameters(record: RequestRecord) -> bytes:
    parts, given = [], {}
    if (temperature := record.temperature) is not None:
        parts.append(_temperature(temperature))
        given["temperature"] = temperature
    if (top_p := record.top_p) is not None:
        parts.append(_top_p(top_p))
        given["top_p"] = top_p
    if (max_tokens := record.max_tokens) is not None:
        parts.append(_max_tokens(max_tokens))
        given["max_tokens"] = max_tokens
    if (seed := record.seed) is not None:
        parts.append(_seed(seed))
        given["seed"] = seed
    if given:
        parts.append(_model_parameters(msgspec.json.encode(given).decode()))
    return b"".join(parts)


def _prompt(record: RequestRecord, version: str) -> bytes:
    """Langfuse links a generation to the prompt of this name and version in its project: both, or neither."""
    name = record.prompt
    is_generation = CALLS[record.operation][1] == "generation"
    if not is_generation or not name or not (version.isascii() and version.isdecimal()) or len(version) > _MAX_DIGITS:
        return b""
    return _prompt_name(name) + _prompt_version(int(version))


def _finish_reason(record: RequestRecord) -> bytes:
    return _finish_reasons((record.finish_reason or "",))
