import os
import re
import subprocess
from pathlib import Path

import pytest
from tests.simulator.running import http, series, user

from quarterdeck.simulator import SimulatorConfig, create_app
from quarterdeck.simulator.metrics import fake_metrics as fake
from quarterdeck.simulator.metrics import series as named

LABELS = 'model_name="simulated",engine="0"'

OURS = {each.name for each in (*named.GAUGES, *named.COUNTERS, *named.HISTOGRAMS, named.LORA_INFO, named.CACHE_INFO)}

READ_NAMES = """
import importlib.util, pathlib, re
root = pathlib.Path(importlib.util.find_spec("vllm").submodule_search_locations[0])
text = "".join(path.read_text() for path in sorted((root / "v1" / "metrics").glob("*.py")))
print("\\n".join(sorted(set(re.findall(r"vllm:[a-z0-9_]+", text)))))
"""


def engine_python() -> Path:
    given = os.environ.get("QUARTERDECK_ENGINE_PYTHON")
    return Path(given) if given else Path(__file__).parents[2] / ".envs" / "engine" / "bin" / "python"


@pytest.fixture(scope="module")
def vllms_names() -> set[str]:
    python = engine_python()
    if not python.exists():
        pytest.skip(f"no engine environment ({python}): vLLM's own names can't be read")
    read = subprocess.run([python, "-c", READ_NAMES], capture_output=True, text=True, check=False)
    if read.returncode:
        pytest.skip(f"no vLLM in the engine environment: {read.stderr.strip().splitlines()[-1]}")
    return set(read.stdout.split())


def test_every_series_is_one_of_vllms(vllms_names: set[str]) -> None:
    assert vllms_names >= OURS


def test_the_series_that_vllm_always_has_are_there(vllms_names: set[str]) -> None:
    conditional = re.compile(
        r"vllm:(corrupted|diffusion|spec_decode|kv_block|estimated|external_prefix|mm_cache|num_accepted|.*_per_pos)"
    )
    assert {name for name in vllms_names if not conditional.match(name)} - OURS == set()


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


async def test_the_page_is_well_formed() -> None:
    async with http(create_app(SimulatorConfig(model='a"b\\c'))) as client:
        text = (await client.get("/metrics")).text
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    for line in text.splitlines():
        if not line.startswith("#"):
            assert re.fullmatch(r'[a-z0-9_:]+\{([a-z_]+="(\\.|[^"\\])*",?)*\} \S+', line), line
            name = line.partition("{")[0]
            assert name in kinds or re.sub(r"_(bucket|sum|count)$", "", name) in kinds
    assert kinds["vllm:generation_tokens_total"] == "counter"


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


@pytest.mark.parametrize(
    ("function", "values"),
    [
        ("oscillate:0:10:4s", [0, 5, 10, 5]),
        ("ramp:0:8:4s", [0, 2, 4, 6]),
        ("rampreset:0:8:4s", [0, 2, 4, 6]),
        ("squarewave:1:9:4s", [1, 1, 9, 9]),
    ],
)
def test_functions_of_time(function: str, values: list[float]) -> None:
    assert [fake.at(function, second) for second in range(4)] == pytest.approx(values)
    assert fake.at("ramp:0:8:4s", 100) == 8
    assert fake.at("rampreset:0:8:4s", 100) == 0
