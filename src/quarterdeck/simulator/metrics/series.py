"""vLLM's metrics: names, help, labels and buckets, from `vllm/v1/metrics/loggers.py`.

A test compares the names with those of the installed vLLM.
"""

from dataclasses import dataclass, field

LABELS = ("model_name", "engine")

FINISHED_REASONS = ("stop", "length", "abort", "error", "repetition")
SOURCES = ("local_compute", "local_cache_hit", "external_kv_transfer")

TTFT = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
INTER_TOKEN = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0),
)
REQUEST = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0),
    *(480.0, 960.0, 1920.0, 7680.0),
)
ITERATION = (1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0)
CHOICES = (1.0, 2.0, 5.0, 10.0, 20.0)
TOKENS: tuple[float, ...] = ()
"""Placeholder for 1, 2, 5, 10 … up to max-model-len."""


def one_two_five(largest: int) -> tuple[float, ...]:
    """Return vLLM's buckets for token counts."""
    buckets: list[float] = []
    power = 1
    while True:
        for step in (1, 2, 5):
            if step * power > largest:
                return tuple(buckets)
            buckets.append(float(step * power))
        power *= 10


@dataclass(frozen=True, slots=True)
class Series:
    name: str
    help: str
    labels: tuple[str, ...] = LABELS
    buckets: tuple[float, ...] = field(default=())


GAUGES = (
    Series("vllm:num_requests_running", "Number of requests in model execution batches."),
    Series("vllm:num_requests_waiting", "Number of requests waiting to be processed."),
    Series("vllm:num_requests_waiting_by_reason", "Number of waiting requests by reason.", (*LABELS, "reason")),
    Series("vllm:engine_sleep_state", "Engine sleep state.", (*LABELS, "sleep_state")),
    Series("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage."),
)

COUNTERS = (
    Series("vllm:prefix_cache_queries", "Prefix cache queries, in terms of number of queried tokens."),
    Series("vllm:prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens."),
    Series("vllm:num_preemptions", "Cumulative number of preemption from the engine."),
    Series("vllm:prompt_tokens", "Number of prefill tokens processed."),
    Series("vllm:prompt_tokens_cached", "Number of cached prompt tokens (local + external)."),
    Series("vllm:prompt_tokens_by_source", "Number of prompt tokens by source.", (*LABELS, "source")),
    Series("vllm:generation_tokens", "Number of generation tokens processed."),
    Series("vllm:request_success", "Count of successfully processed requests.", (*LABELS, "finished_reason")),
)

HISTOGRAMS = (
    Series("vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.", buckets=TTFT),
    Series(
        "vllm:inter_token_latency_seconds",
        "Histogram of inter-token latency in seconds.",
        buckets=INTER_TOKEN,
    ),
    Series(
        "vllm:request_time_per_output_token_seconds",
        "Histogram of time_per_output_token_seconds per request.",
        buckets=INTER_TOKEN,
    ),
    Series("vllm:e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", buckets=REQUEST),
    Series(
        "vllm:request_queue_time_seconds",
        "Histogram of time spent in WAITING phase for request.",
        buckets=REQUEST,
    ),
    Series(
        "vllm:request_inference_time_seconds",
        "Histogram of time spent in RUNNING phase for request.",
        buckets=REQUEST,
    ),
    Series(
        "vllm:request_prefill_time_seconds",
        "Histogram of time spent in PREFILL phase for request.",
        buckets=REQUEST,
    ),
    Series(
        "vllm:request_decode_time_seconds",
        "Histogram of time spent in DECODE phase for request.",
        buckets=REQUEST,
    ),
    Series("vllm:request_prompt_tokens", "Number of prefill tokens processed.", buckets=TOKENS),
    Series("vllm:request_generation_tokens", "Number of generation tokens processed.", buckets=TOKENS),
    Series(
        "vllm:request_max_num_generation_tokens",
        "Histogram of maximum number of requested generation tokens.",
        buckets=TOKENS,
    ),
    Series("vllm:request_params_n", "Histogram of the n request parameter.", buckets=CHOICES),
    Series("vllm:request_params_max_tokens", "Histogram of the max_tokens request parameter.", buckets=TOKENS),
    Series(
        "vllm:request_prefill_kv_computed_tokens",
        "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
        buckets=TOKENS,
    ),
    Series("vllm:iteration_tokens_total", "Histogram of number of tokens per engine_step.", buckets=ITERATION),
)

LORA_INFO = Series(
    "vllm:lora_requests_info",
    "Running stats on lora requests.",
    ("max_lora", "waiting_lora_adapters", "running_lora_adapters"),
)
CACHE_INFO = Series(
    "vllm:cache_config_info",
    "Information of the LLMEngine CacheConfig",
    ("block_size", "num_gpu_blocks", "enable_prefix_caching", "engine"),
)

OWN = (
    Series(
        "quarterdeck_simulator_client_disconnects",
        "Requests whose client disconnected before the response was complete.",
        LABELS,
    ),
    Series("quarterdeck_simulator_faults", "Faults applied.", (*LABELS, "kind")),
)
