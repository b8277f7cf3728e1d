"""Throughput of one file at the gateway and offline on Ray, with the same engine settings, one after the other.
`python -m tests.e2e.measure_offline [lines]`, with vLLM and the packaged chat model."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.e2e.stack import CHAT, CHECKOUT, Stack

CONFIG = f"""
models:
  - name: {CHAT}
    engine: {{source: "packaged:{CHAT}", context: 2048, args: {{max_num_seqs: 32}}}}
batches: {{idle_share: 1, busy_share: 1, max_concurrency: 32}}
"""


def write_input(path: Path, count: int) -> None:
    lines = []
    for at in range(count):
        body = {"model": CHAT, "messages": [{"role": "user", "content": f"Tell me about the number {at}."}]}
        body |= {"max_tokens": 32, "ignore_eos": True, "temperature": 0}
        lines.append({"custom_id": f"{at}", "method": "POST", "url": "/v1/chat/completions", "body": body})
    path.write_text("\n".join(map(json.dumps, lines)))


def run(stack: Stack, source: Path, *words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "quarterdeck.cli", "batch", "run", str(source), "--json", *words]
    done = subprocess.run(command, env=stack.environ, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main(count: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="qd-"))
    source = folder / "in.jsonl"
    write_input(source, count)
    stack = Stack(folder, CONFIG)
    try:
        stack.start()
        try:
            write_input(folder / "warm.jsonl", 8)
            run(stack, folder / "warm.jsonl")
            _show("gateway", run(stack, source))
        finally:
            stack.stop()
        _show("--ray", run(stack, source, "--ray"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _show(name: str, done: dict[str, Any]) -> None:
    seconds, start = done["seconds"], done.get("start_seconds", 0.0)
    rates = f"{done['requests_per_second']:.2f} requests/s, {done['output_tokens_per_second']:.0f} output tokens/s"
    print(f"{name:8} {rates}; {seconds:.1f} s, {start:.1f} s of it to start", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
