"""Figures of models that come and go under load: `python -m tests.e2e.measure_live_models --engine vllm`.

Streams run at a constant rate on a first model through the gateway while that is changed, and a second one is added,
stopped, started and removed by the configuration. Prints seconds and memory of each step, and how many streams were
lost, which must be none.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml
from tests.platform import free_port

STEP_SECONDS = 900.0
CHECKOUT = Path(__file__).resolve().parents[2]


def model(kind: str, name: str, **engine: Any) -> dict[str, Any]:
    fields = {"source": "packaged:smollm2-135m-instruct", "context": 1024, "kv_cache_gib": 0.25, **engine}
    if kind == "sim":
        fields["args"] = {"load_duration": "2s", "time_to_first_token": "50ms", "inter_token_latency": "20ms"}
    return {"name": name, "engine": fields}


@dataclass
class Load:
    """Streams at a constant rate."""

    http: httpx.AsyncClient
    rate: float
    """Streams a second. A machine that is too slow for it fails streams by the gateway's timeouts."""
    max_tokens: int
    done: int = 0
    lost: list[str] = field(default_factory=list)
    first_tokens: list[float] = field(default_factory=list)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(self._stream())
                await asyncio.sleep(1 / self.rate)

    async def _stream(self) -> None:
        body = {"model": "first", "messages": [{"role": "user", "content": "Count to ten."}], "stream": True}
        began, last = time.monotonic(), ""
        try:
            request = self.http.stream("POST", "/v1/chat/completions", json={**body, "max_tokens": self.max_tokens})
            async with request as response:
                first = True
                async for line in response.aiter_lines():
                    if line.startswith("data: {") and first:
                        self.first_tokens.append(time.monotonic() - began)
                        first = False
                    last = line if line.startswith("data:") else last
                if response.status_code != 200 or last != "data: [DONE]":
                    self.lost.append(f"{response.status_code} {last[:200]}")
                    return
        except httpx.HTTPError as error:
            self.lost.append(repr(error))
            return
        self.done += 1


class Platform:
    """`quarterdeck up` in its own folder."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.kind = folder, kind
        self.port, self.engine_port, worker_port = free_port(), free_port(), free_port()
        environ = {name: value for name, value in os.environ.items() if not name.startswith("QUARTERDECK_")}
        self.environ = environ | {
            "QUARTERDECK_STATE": str(folder / "state"),
            "QUARTERDECK_CONFIG": str(folder / "quarterdeck.yaml"),
            "QUARTERDECK_ENGINE_PORT": str(self.engine_port),
            "QUARTERDECK_WORKER_PORT": str(worker_port),
        }

    def write(self, *models: dict[str, Any]) -> None:
        scratch = self.folder / "new.yaml"
        scratch.write_text(yaml.safe_dump({"models": list(models)}))
        scratch.replace(self.folder / "quarterdeck.yaml")

    async def statuses(self) -> dict[str, dict[str, Any]]:
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            try:
                answer = await client.get(f"http://127.0.0.1:{self.engine_port}/endpoints")
                return {each["name"]: each for each in answer.json()["models"]}
            except (httpx.HTTPError, KeyError, ValueError):
                return {}

    async def until(self, name: str, *states: str) -> None:
        """Wait for a state of a model; without states: until it is not listed."""
        deadline = time.monotonic() + STEP_SECONDS
        while True:
            found = await self.statuses()
            if (name in found and found[name]["state"] in states) or (found and not states and name not in found):
                return
            if time.monotonic() > deadline:
                raise SystemExit(f"{name}: {found.get(name)}\n{(self.folder / 'up.log').read_text()[-3000:]}")
            await asyncio.sleep(0.2)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[httpx.AsyncClient]:
        with (self.folder / "up.log").open("wb") as log:
            process = subprocess.Popen(  # noqa: ASYNC220
                [sys.executable, "-m", "quarterdeck.cli", "up", "--engine", self.kind, "--port", str(self.port)],
                env=self.environ,
                stdout=log,
                stderr=log,
                cwd=CHECKOUT,
            )
        try:
            await self.until("first", "ready")
            key = ""
            while not key:
                with contextlib.suppress(OSError, StopIteration):
                    lines = (self.folder / "state" / "credentials").read_text().splitlines()
                    line = next(line for line in lines if line.startswith("api_key"))
                    key = line.partition("=")[2].strip().strip('"')
                await asyncio.sleep(0.5)
            url, headers = f"http://127.0.0.1:{self.port}", {"authorization": f"Bearer {key}"}
            async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=300) as client:
                while not await _is_ready(client):  # noqa: ASYNC110
                    await asyncio.sleep(0.5)
                yield client
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(120)


async def _is_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx.HTTPError:
        return False


async def measure(kind: str, rate: float, max_tokens: int) -> int:
    with tempfile.TemporaryDirectory(prefix="live-") as name:
        platform = Platform(Path(name), kind)
        first, second = model(kind, "first"), model(kind, "second", quantization="bitsandbytes")
        changed = model(kind, "first", context=768)
        platform.write(first)
        began = time.monotonic()
        async with platform.running() as http:
            await report(platform, "start of the first", began)
            load = Load(http, rate, max_tokens)
            loading = asyncio.create_task(load.run())
            steps: list[tuple[str, tuple[dict[str, Any], ...], tuple[str, ...]]] = [
                ("change the first", (changed,), ("ready",)),
                ("add a 4-bit one beside", (changed, second), ("ready",)),
                ("stop it", (changed, {**second, "stopped": True}), ("stopped",)),
                ("start it", (changed, second), ("ready",)),
                ("remove it", (changed,), ()),
            ]
            for words, models, states in steps:
                began, name = time.monotonic(), "first" if words == "change the first" else "second"
                platform.write(*models)
                if name == "first":
                    await platform.until(name, "updating")
                await platform.until(name, *states)
                await report(platform, words, began)
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            median = sorted(load.first_tokens)[len(load.first_tokens) // 2]
            first_token = f"first token {median * 1000:.0f} ms at p50"
            print(f"{load.done} streams on the first, {len(load.lost)} lost; {first_token}")
            print("\n".join(load.lost[:5]))
            return 1 if load.lost else 0


async def report(platform: Platform, words: str, began: float) -> None:
    took = time.monotonic() - began
    memory = {name: (each.get("memory_bytes") or 0) / 1e9 for name, each in (await platform.statuses()).items()}
    print(f"{words:24} {took:6.1f} s   memory {json.dumps({k: round(v, 2) for k, v in memory.items()})} GB", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=("sim", "vllm"), default="sim")
    parser.add_argument("--rate", type=float, default=5.0, help="streams a second on the first model")
    parser.add_argument("--max-tokens", type=int, default=16, help="of each stream")
    arguments = parser.parse_args()
    sys.exit(asyncio.run(measure(arguments.engine, arguments.rate, arguments.max_tokens)))
