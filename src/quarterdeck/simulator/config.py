"""The configuration of a simulated engine.

Option names are llm-d-inference-sim's where it has them, so that each can replace the other. `options.py` reads them
from a command line and a YAML file; `POST /admin/config` changes those in `AT_RUN_TIME` at run time. Times are seconds
here and durations there ("80ms"; a bare number is milliseconds, as in llm-d-inference-sim).
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from quarterdeck.simulator.start_failures import FAILURES

VLLM_VERSION = "0.29.0"
"""The release whose bodies and metric names are simulated."""


class Duration:
    """Marks a field that is written as a duration."""


Seconds = Annotated[float, Meta(ge=0), Duration]


class SimulatorConfig(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """One simulated engine. Each field's description is its help text and its line in docs/simulator.md."""

    model: Annotated[str, Meta(description="model name, and its root in /v1/models")] = "simulated"
    served_model_name: Annotated[
        list[str], Meta(description="names under which the model is served; default: the model's")
    ] = []
    more_models: Annotated[
        list[str],
        Meta(description="additional models in this process, with the same task; a second --model is one of them"),
    ] = []
    embedding_model: Annotated[list[str], Meta(description="additional models, for embeddings and score")] = []
    media_model: Annotated[
        list[str], Meta(description="further models, for audio and images: tones and squares, not speech or pictures")
    ] = []
    task: Annotated[
        Literal["generate", "embed", "any"],
        Meta(
            description="routes of the model: chat and completions, embeddings and score, or all and audio and images"
        ),
    ] = "generate"
    host: Annotated[str, Meta(description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="port; 0 takes a free one; the URL is printed")] = 8000
    http_timeout_keep_alive: Annotated[
        Seconds, Meta(description="idle time after which a connection is closed (vLLM's default)")
    ] = 5.0
    endpoint_id: Annotated[str, Meta(description="id in GET /endpoints; default: <model>#1")] = ""
    advertise_url: Annotated[str, Meta(description="url in GET /endpoints; default: where it listens")] = ""

    max_model_len: Annotated[int, Meta(ge=1, description="context length in tokens, prompt and output together")] = 4096
    max_num_seqs: Annotated[int, Meta(ge=1, description="sequences that run concurrently")] = 256
    max_waiting_queue_length: Annotated[int, Meta(ge=0, description="requests that may wait; beyond it: 429")] = 1000
    mode: Annotated[
        Literal["random", "echo"],
        Meta(description="generate deterministic text, or echo the last user message"),
    ] = "random"
    seed: Annotated[int, Meta(description="seed of text, jitter and faults")] = 0
    fail_start: Annotated[
        str, Meta(description="fail at the start as vLLM does: model-not-found, gated, … (see Failures at the start)")
    ] = ""
    follow_config: Annotated[
        bool,
        Meta(
            description="serve the models of quarterdeck.yaml and those added beside it, and follow changes; other "
            "options are those of each of them"
        ),
    ] = False
    load_duration: Annotated[
        Seconds, Meta(description="with follow-config: time from the start of a model until it serves")
    ] = 0.0
    memory_gib: Annotated[
        float, Meta(ge=0, description="with follow-config: memory that the models share, in GiB; 0: any amount")
    ] = 0.0
    startup_duration: Annotated[Seconds, Meta(description="time after the start during which requests get 503")] = 0.0
    enable_request_id_headers: Annotated[bool, Meta(description="return the request's x-request-id header")] = False
    enable_prompt_tokens_details: Annotated[bool, Meta(description="report cached tokens in usage")] = True
    enable_auto_tool_choice: Annotated[
        bool, Meta(description="with tool_choice auto, call a tool that the last user message names")
    ] = True
    max_request_body_size_mb: Annotated[int, Meta(ge=1, description="largest request body; beyond it: 413")] = 64
    default_embedding_dimensions: Annotated[int, Meta(ge=1, description="length of an embedding")] = 384

    latency_calculator: Annotated[
        Literal["", "constant", "per-token"],
        Meta(
            description="time before the first token: time-to-first-token, or prefill-overhead and "
            "prefill-time-per-token; empty: time-to-first-token if it is set"
        ),
    ] = ""
    time_to_first_token: Annotated[Seconds, Meta(description="time before the first token")] = 0.0
    time_to_first_token_std_dev: Annotated[Seconds, Meta(description="its standard deviation, at most 30 % of it")] = (
        0.0
    )
    inter_token_latency: Annotated[Seconds, Meta(description="time between tokens")] = 0.0
    inter_token_latency_std_dev: Annotated[Seconds, Meta(description="its standard deviation, at most 30 % of it")] = (
        0.0
    )
    prefill_overhead: Annotated[Seconds, Meta(description="constant part of the prefill time")] = 0.0
    prefill_time_per_token: Annotated[Seconds, Meta(description="prefill time per prompt token that is not cached")] = (
        0.0
    )
    prefill_time_std_dev: Annotated[Seconds, Meta(description="standard deviation of the prefill time")] = 0.0
    time_factor_under_load: Annotated[
        float, Meta(ge=1, description="factor by which all times have grown at max-num-seqs, linearly")
    ] = 1.0

    enable_kvcache: Annotated[bool, Meta(description="simulate KV-cache blocks and the prefix cache")] = True
    kv_cache_size: Annotated[int, Meta(ge=1, description="number of KV-cache blocks")] = 16384
    block_size: Annotated[int, Meta(ge=1, description="tokens per block")] = 16

    lora_modules: Annotated[
        list[str], Meta(description='adapters loaded at start: name=path or {"name": …, "path": …}')
    ] = []
    max_loras: Annotated[int, Meta(ge=1, description="different adapters that run concurrently")] = 1

    max_lora_rank: Annotated[
        int, Meta(ge=1, description="rank of an adapter whose folder has an adapter_config.json; beyond it: refused")
    ] = 16

    failure_injection_rate: Annotated[float, Meta(ge=0, le=100, description="percentage of requests that fail")] = 0.0
    failure_types: Annotated[
        list[str], Meta(description="faults of these requests (names as in x-fault, or llm-d-inference-sim's)")
    ] = []
    health: Annotated[Literal["ok", "fail", "hang"], Meta(description="response of GET /health")] = "ok"
    drain_delay: Annotated[
        Seconds, Meta(description="time between SIGTERM and the closing of the port, in which it reports draining")
    ] = 0.0
    drain_timeout: Annotated[Seconds, Meta(description="time after that for running requests to finish")] = 30.0

    fake_metrics: Annotated[
        dict[str, Any], Meta(description="values that /metrics reports instead of real ones, as JSON")
    ] = {}

    @property
    def names(self) -> list[str]:
        """The names of the main model."""
        return self.served_model_name or [self.model]

    @property
    def tasks(self) -> dict[str, str]:
        """Every name and its task."""
        further = {
            **dict.fromkeys(self.embedding_model, "embed"),
            **dict.fromkeys(self.media_model, "media"),
            **dict.fromkeys(self.more_models, self.task),
        }
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
"""Fields that `POST /admin/config` may change."""

SPREADS = (
    ("time_to_first_token_std_dev", "time_to_first_token"),
    ("inter_token_latency_std_dev", "inter_token_latency"),
)


def validate(config: SimulatorConfig) -> None:
    """Raise ValueError for options that conflict."""
    if config.fail_start and config.fail_start not in FAILURES:
        raise ValueError(f"fail-start: '{config.fail_start}' is none of {', '.join(FAILURES)}")
    for spread, mean in SPREADS:
        if getattr(config, spread) > 0.3 * getattr(config, mean) + 1e-12:
            raise ValueError(f"{spread.replace('_', '-')} can't be more than 30% of {mean.replace('_', '-')}")
    capacity = config.kv_cache_size * config.block_size
    if config.enable_kvcache and capacity < config.max_model_len:
        raise ValueError(
            f"max-model-len ({config.max_model_len}) is larger than the KV cache holds "
            f"(kv-cache-size × block-size = {capacity} tokens)"
        )
