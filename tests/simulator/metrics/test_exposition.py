from tests.simulator.harness import http, series, user

from quarterdeck.simulator import SimulatorConfig, create_app

LABELS = 'model_name="simulated",engine="0"'


async def test_the_page_counts_what_happened() -> None:
    async with http(create_app()) as client:
        body = {"messages": user("word " * 40), "max_tokens": 5, "ignore_eos": True}
        answers = [(await client.post("/v1/chat/completions", json=body)).json()["usage"] for _ in range(2)]
        page = series((await client.get("/metrics")).text)
    prompt = sum(usage["prompt_tokens"] for usage in answers)
    cached = sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in answers)
    assert page[f"vllm:prompt_tokens_total{{{LABELS}}}"] == prompt
    assert page[f"vllm:generation_tokens_total{{{LABELS}}}"] == 10
    assert page[f"vllm:prefix_cache_queries_total{{{LABELS}}}"] == prompt
    assert page[f"vllm:prefix_cache_hits_total{{{LABELS}}}"] == cached > 0
    assert page[f'vllm:prompt_tokens_by_source_total{{{LABELS},source="local_cache_hit"}}'] == cached
    assert page[f'vllm:request_success_total{{{LABELS},finished_reason="length"}}'] == 2
    assert page[f"vllm:time_to_first_token_seconds_count{{{LABELS}}}"] == 2
    assert page[f"vllm:inter_token_latency_seconds_count{{{LABELS}}}"] == 8
    assert page[f'vllm:e2e_request_latency_seconds_bucket{{{LABELS},le="+Inf"}}'] == 2


async def test_fake_metrics_take_the_place_of_the_real_ones() -> None:
    fakes = {"running-requests": 7, "kv-cache-usage": 0.4, "total-prompt-tokens": 50, "ttft-buckets-values": [1, 2]}
    async with http(create_app(SimulatorConfig(fake_metrics=fakes))) as client:
        await client.post("/v1/chat/completions", json={"messages": user("hello")})
        page = series((await client.get("/metrics")).text)
        changed = await client.post("/admin/config", json={"fake-metrics": {"waiting-requests": "squarewave:3:5:1h"}})
        later = series((await client.get("/metrics")).text)
        wrong = await client.post("/admin/config", json={"fake-metrics": {"waiting-requests": "zigzag:3:5:1h"}})
    assert page[f"vllm:num_requests_running{{{LABELS}}}"] == 7
    assert page[f"vllm:num_requests_waiting{{{LABELS}}}"] == 0
    assert page[f"vllm:kv_cache_usage_perc{{{LABELS}}}"] == 0.4
    assert page[f"vllm:prompt_tokens_total{{{LABELS}}}"] == 50
    assert page[f"vllm:generation_tokens_total{{{LABELS}}}"] == 0
    assert page[f"vllm:time_to_first_token_seconds_count{{{LABELS}}}"] == 3
    assert changed.status_code == 200 and wrong.status_code == 400
    assert later[f"vllm:num_requests_waiting{{{LABELS}}}"] == 3
