"""What a simulated engine can be told.

The names are llm-d-inference-sim's where it has them, so that either can stand in for the other; `options.py` reads
them from a command line and a YAML file, `POST /admin/config` changes those in `AT_RUN_TIME` while it runs. Times are
seconds here and durations there ("80ms"; a bare number is milliseconds, as llm-d-inference-sim reads it).
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

VLLM_VERSION = "0.29.0"
"""The release whose wire shapes and series names are simulated."""


class Duration:
    """Marks a field whose text is a duration."""


Seconds = Annotated[float, Meta(ge=0), Duration]


class SimulatorConfig(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """One simulated engine. Each field's description is its help text and its line in docs/simulator.md."""

    model: Annotated[str, Meta(description="name of the model, and its root in /v1/models")] = "simulated"
    served_model_name: Annotated[list[str], Meta(description="names it answers to; default: the model's")] = []
    more_models: Annotated[
        list[str],
        Meta(description="further models of the same process, for the same task; a second --model is one of them"),
    ] = []
    embedding_model: Annotated[list[str], Meta(description="further models, for embeddings and score")] = []
    task: Annotated[
        Literal["generate", "embed", "any"],
        Meta(description="what the model is for: chat and completions, or embeddings and score, or all"),
    ] = "generate"
    host: Annotated[str, Meta(description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="port; 0 takes a free one and prints it")] = 8000
    http_timeout_keep_alive: Annotated[
        Seconds, Meta(description="an idle connection is closed after so long (vLLM's default)")
    ] = 5.0
    endpoint_id: Annotated[str, Meta(description="id in GET /endpoints; default: <model>#1")] = ""
    advertise_url: Annotated[str, Meta(description="url in GET /endpoints; default: where it listens")] = ""

    max_model_len: Annotated[int, Meta(ge=1, description="context: prompt and answer together, in tokens")] = 4096
    max_num_seqs: Annotated[int, Meta(ge=1, description="sequences that run at the same time")] = 256
    max_waiting_queue_length: Annotated[
        int, Meta(ge=0, description="requests that may wait for a place; one more is a 429")
    ] = 1000
    mode: Annotated[
        Literal["random", "echo"],
        Meta(description="answer with deterministic words, or with the last user message"),
    ] = "random"
    seed: Annotated[int, Meta(description="another seed gives other words (and other jitter, and other faults)")] = 0
    startup_duration: Annotated[Seconds, Meta(description="503 for so long after the start")] = 0.0
    enable_request_id_headers: Annotated[bool, Meta(description="answer with the x-request-id that came")] = False
    enable_prompt_tokens_details: Annotated[bool, Meta(description="report cached tokens in usage")] = True
    enable_auto_tool_choice: Annotated[
        bool, Meta(description="tool_choice auto calls a tool that the last user message names")
    ] = True
    max_request_body_size_mb: Annotated[int, Meta(ge=1, description="a larger body is a 413")] = 64
    default_embedding_dimensions: Annotated[int, Meta(ge=1, description="length of an embedding")] = 384

    latency_calculator: Annotated[
        Literal["", "constant", "per-token"],
        Meta(
            description="what the first token waits for: time-to-first-token, or prefill-overhead and "
            "prefill-time-per-token; empty: time-to-first-token where it is set"
        ),
    ] = ""
    time_to_first_token: Annotated[Seconds, Meta(description="wait before the first token")] = 0.0
    time_to_first_token_std_dev: Annotated[Seconds, Meta(description="its spread, at most 30 % of it")] = 0.0
    inter_token_latency: Annotated[Seconds, Meta(description="wait before each further token")] = 0.0
    inter_token_latency_std_dev: Annotated[Seconds, Meta(description="its spread, at most 30 % of it")] = 0.0
    prefill_overhead: Annotated[Seconds, Meta(description="constant part of the prefill")] = 0.0
    prefill_time_per_token: Annotated[Seconds, Meta(description="prefill for each prompt token not in the cache")] = 0.0
    prefill_time_std_dev: Annotated[Seconds, Meta(description="spread of the whole prefill")] = 0.0
    time_factor_under_load: Annotated[
        float, Meta(ge=1, description="all times grow linearly to so many times at max-num-seqs")
    ] = 1.0

    enable_kvcache: Annotated[bool, Meta(description="simulate KV-cache blocks and the prefix cache")] = True
    kv_cache_size: Annotated[int, Meta(ge=1, description="KV-cache blocks")] = 16384
    block_size: Annotated[int, Meta(ge=1, description="tokens in a block")] = 16

    lora_modules: Annotated[
        list[str], Meta(description='adapters at the start: name=path or {"name": …, "path": …}')
    ] = []
    max_loras: Annotated[int, Meta(ge=1, description="different adapters that run at the same time")] = 1

    failure_injection_rate: Annotated[float, Meta(ge=0, le=100, description="percent of requests that fail")] = 0.0
    failure_types: Annotated[
        list[str], Meta(description="with which faults (x-fault's words, or llm-d-inference-sim's)")
    ] = []
    health: Annotated[Literal["ok", "fail", "hang"], Meta(description="what GET /health does")] = "ok"
    drain_delay: Annotated[Seconds, Meta(description="after SIGTERM: seconds of draining before the port closes")] = 0.0
    drain_timeout: Annotated[Seconds, Meta(description="after that: seconds that running requests have to end")] = 30.0

    fake_metrics: Annotated[
        dict[str, Any], Meta(description="values that /metrics shows in place of the real ones, as JSON")
    ] = {}

    @property
    def names(self) -> list[str]:
        """What the first model answers to."""
        return self.served_model_name or [self.model]

    @property
    def tasks(self) -> dict[str, str]:
        """Every model's names, and what each is for."""
        further = {**dict.fromkeys(self.embedding_model, "embed"), **dict.fromkeys(self.more_models, self.task)}
        first: dict[str, str] = dict.fromkeys(self.names, self.task)
        return first | {name: task for name, task in further.items() if name not in first}


AT_RUN_TIME = frozenset(
    {
        "max_num_seqs",
        "max_waiting_queue_length",
        "mode",
        "latency_calculator",
        "time_to_first_token",
        "time_to_first_token_std_dev",
        "inter_token_latency",
        "inter_token_latency_std_dev",
        "prefill_overhead",
        "prefill_time_per_token",
        "prefill_time_std_dev",
        "time_factor_under_load",
        "enable_request_id_headers",
        "enable_prompt_tokens_details",
        "enable_auto_tool_choice",
        "max_loras",
        "failure_injection_rate",
        "failure_types",
        "health",
        "drain_delay",
        "drain_timeout",
        "fake_metrics",
    }
)
"""The fields that `POST /admin/config` may change."""

SPREADS = (
    ("time_to_first_token_std_dev", "time_to_first_token"),
    ("inter_token_latency_std_dev", "inter_token_latency"),
)


def check(config: SimulatorConfig) -> None:
    """Raise ValueError where two options don't go together."""
    for spread, mean in SPREADS:
        if getattr(config, spread) > 0.3 * getattr(config, mean) + 1e-12:
            raise ValueError(f"{spread.replace('_', '-')} can't be more than 30% of {mean.replace('_', '-')}")
    capacity = config.kv_cache_size * config.block_size
    if config.enable_kvcache and capacity < config.max_model_len:
        raise ValueError(
            f"max-model-len ({config.max_model_len}) is larger than the KV cache holds "
            f"(kv-cache-size × block-size = {capacity} tokens)"
        )
