"""Figures of a model from an engine's metrics."""

from quarterdeck.gateway.engine_figures import figures

TEXT = """# HELP vllm:num_requests_running x
vllm:num_requests_running{engine="0",model_name="chat"} 3.0
vllm:num_requests_running{engine="0",model_name="other"} 9.0
vllm:num_requests_waiting{engine="0",model_name="chat"} 1.0
vllm:kv_cache_usage_perc{engine="0",model_name="chat"} 0.25
vllm:cache_config_info{block_size="16",enable_prefix_caching="True",engine="0",num_gpu_blocks="1000"} 1.0
vllm:request_time_per_output_token_seconds_bucket{engine="0",le="0.01",model_name="chat"} 4.0
vllm:request_time_per_output_token_seconds_sum{engine="0",model_name="chat"} 0.5
vllm:request_time_per_output_token_seconds_count{engine="0",model_name="chat"} 10.0
broken{ 7
vllm:num_requests_running{engine="0",model_name="chat"} nothing
"""


def test_the_figures_of_one_model_in_a_shared_exposition() -> None:
    assert figures([(TEXT, "chat")]) == {
        "kv_cache_tokens": 16_000,
        "kv_cache_usage": 0.25,
        "requests_running": 3,
        "requests_waiting": 1,
        "tokens_per_second": 20.0,
    }


def test_replicas_are_added_up() -> None:
    both = figures([(TEXT, "chat"), (TEXT, "chat")])
    assert (both["kv_cache_tokens"], both["requests_running"], both["tokens_per_second"]) == (32_000, 6, 20.0)


def test_without_an_exposition_there_are_no_figures() -> None:
    assert figures([("", "chat"), ("<html>", "chat")]) == {}
