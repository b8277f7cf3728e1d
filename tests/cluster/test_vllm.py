"""Real vLLM with a real model in a pod, under the real KubeRay: `make test-cluster-vllm`. Prints what it measures."""

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.cluster import provision
from tests.cluster.kubectl import Kubectl
from tests.cluster.release import Release

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGED = "smollm2-135m-instruct"
MODEL = "smollm2"
PODS = f"quarterdeck.dev/model={MODEL}"
CLAIM = "models"
START_S = 1500
HOST = "10.250.0.1/32"
TOKENS = 64
READ_MEMORY = (
    "cd /sys/fs/cgroup; if [ -e memory.current ]; then cat memory.current; "
    "else cd memory; cat memory.usage_in_bytes; fi; "
    "grep -E '^(anon|rss) ' memory.stat"  # of cgroups 2 and 1
)

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def weights() -> Path:
    """The packaged chat model, prepared in the cache of the engine's environment."""
    python = CHECKOUT / ".envs/engine/bin/python"
    subprocess.run([sys.executable, CHECKOUT / "environments/make.py", "engine"], check=True)
    command = [python, "-m", "quarterdeck.engine.packaged", PACKAGED]
    subprocess.run(command, check=True, cwd=CHECKOUT)
    source = "from quarterdeck.settings.environment import Environment; print(Environment.read().cache)"
    cache = subprocess.run([python, "-c", source], check=True, capture_output=True, text=True, cwd=CHECKOUT).stdout
    return Path(cache.strip()) / "models" / PACKAGED


@pytest.fixture(scope="module")
def release(
    cluster: provision.Provisioned,
    make_release: Callable[..., Release],
    build_images: Callable[..., dict[str, str]],
    namespace: Kubectl,
    weights: Path,
) -> Release:
    """The platform, and a claim that has the weights."""
    if cluster.home is None:
        pytest.skip("the weights are copied to a volume of shared/cluster")
    environ = {**cluster.environ, "ENABLE_INIT_CONTAINER_INJECTION": "false"}
    subprocess.run([provision.SCRIPT, "kuberay"], check=True, capture_output=True, timeout=120, env=environ)
    (volume,) = provision.add_volumes(cluster, namespace, [CLAIM])
    shutil.copytree(weights, cluster.home / "volumes" / volume / PACKAGED)
    namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": CLAIM},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }
    )
    values = {"networkPolicy": {"kuberayFrom": [{"ipBlock": {"cidr": HOST}}]}}
    return make_release(values, namespace=namespace, more_images=build_images("engine-cpu"))


def test_real_vllm_serves_a_real_model_from_a_pod(release: Release) -> None:
    began = time.monotonic()
    release.apply_model(
        MODEL,
        backend="RayService",
        engine={"type": "vllm", "args": {"max_num_seqs": 32}},
        source={"uri": f"pvc://{CLAIM}/{PACKAGED}"},
        context=2048,
        resources={"accelerator": "cpu", "cpu": "200m", "memory": "6Gi"},
        rollout={"drainSeconds": 20},
    )
    release.wait_ready(MODEL, seconds=START_S)
    figures = {"Model applied to Ready": f"{time.monotonic() - began:.0f} s"}
    _, key = release.create_key("vllm")
    began = time.monotonic()
    assert asyncio.run(_tokens(release, key, 1)) == TOKENS
    figures["first answer"] = f"{time.monotonic() - began:.1f} s"
    for streams in (1, 8, 32):
        began = time.monotonic()
        tokens = asyncio.run(_tokens(release, key, streams))
        figures[f"tokens a second, {streams} streams"] = f"{tokens / (time.monotonic() - began):.1f}"
    for pod in release.kubectl.select("pods", PODS):
        name, kind = pod["metadata"]["name"], pod["metadata"]["labels"]["ray.io/node-type"]
        container = pod["spec"]["containers"][0]["name"]
        found = release.kubectl("exec", name, "-c", container, "--", "sh", "-c", READ_MEMORY).split()
        anonymous = int(found[-1])
        figures[f"memory of the {kind}"] = f"{anonymous / 2**30:.2f} GiB ({int(found[0]) / 2**30:.2f} with files)"
    print("\n" + "\n".join(f"{name}: {value}" for name, value in figures.items()))


async def _tokens(release: Release, key: str, streams: int) -> int:
    """Output tokens of this many streams at once."""
    async with openai.AsyncOpenAI(base_url=f"{release.url}/v1", api_key=key, max_retries=0, timeout=600) as client:
        return sum(await asyncio.gather(*(_stream(client, number) for number in range(streams))))


async def _stream(client: openai.AsyncOpenAI, number: int) -> int:
    messages: Any = [{"role": "user", "content": f"Write a story about the number {number}."}]
    options: Any = {"stream_options": {"include_usage": True}, "extra_body": {"ignore_eos": True}}
    usage = 0
    chunks = await client.chat.completions.create(
        model=MODEL, messages=messages, max_tokens=TOKENS, stream=True, **options
    )
    async for chunk in chunks:
        usage = chunk.usage.completion_tokens if chunk.usage else usage
    return usage
