"""Tokens a second and time to first token through the whole platform, beside a bare vLLM server.

    python loadtests/bench/engine.py --platform URL --key KEY --bare URL --model NAME [--rounds 3]

Both arms are running already, with the same model and flags: docs/benchmarks.md has the commands. Each round drives
1, 8 and 32 streams of 64 tokens against one arm, then the other. `ignore_eos` makes every stream 64 tokens long.
"""

import argparse
import asyncio
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from parts import machine

from quarterdeck.inference.http1 import HttpClient, Origin, Timeouts, request_head

TOKENS = 64
STREAMS = (1, 8, 32)


@dataclass(frozen=True)
class Arm:
    name: str
    url: str
    key: str


async def stream(client: HttpClient, arm: Arm, model: str, number: int) -> tuple[float, int]:
    """One stream. Returns seconds to its first event and its events with a token."""
    origin = Origin.parse(arm.url)
    body = json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": f"Tell me a story about ship number {number}."}],
            "max_tokens": TOKENS,
            "stream": True,
            "ignore_eos": True,
            "temperature": 0,
        }
    ).encode()
    headers = [(b"content-type", b"application/json"), (b"authorization", f"Bearer {arm.key}".encode())]
    head = request_head("POST", origin, "/v1/chat/completions", headers) + b"content-length: %d\r\n\r\n" % len(body)
    started = time.perf_counter()
    connection = await client.request(origin, head, body, Timeouts(5, 300, 300))
    try:
        if connection.status != 200:
            raise RuntimeError(f"{arm.name} answered {connection.status}: {(await connection.read_all(10**6))[:500]!r}")
        first, tokens = 0.0, 0
        while piece := await connection.read():
            first = first or time.perf_counter() - started
            tokens += piece.count(b'"content":"') + piece.count(b'"content": "')
    finally:
        client.release(origin, connection)
    return first, min(tokens, TOKENS)


async def load(client: HttpClient, arm: Arm, model: str, streams: int) -> tuple[float, float]:
    """`streams` at once. Returns tokens a second and the median time to first token, in ms."""
    started = time.perf_counter()
    done = await asyncio.gather(*(stream(client, arm, model, number) for number in range(streams)))
    seconds = time.perf_counter() - started
    return sum(tokens for _, tokens in done) / seconds, statistics.median(first for first, _ in done) * 1000


async def run(arms: list[Arm], model: str, rounds: int) -> dict[str, dict[int, list[tuple[float, float]]]]:
    client = HttpClient()
    results: dict[str, dict[int, list[tuple[float, float]]]] = {arm.name: {n: [] for n in STREAMS} for arm in arms}
    for arm in arms:  # the first requests compile
        await load(client, arm, model, 2)
    for number in range(rounds):
        for streams in STREAMS:
            for arm in arms if number % 2 == 0 else arms[::-1]:
                result = await load(client, arm, model, streams)
                results[arm.name][streams].append(result)
                print(
                    f"round {number + 1} {arm.name} {streams} streams: {result[0]:.1f} tok/s, first {result[1]:.0f} ms",
                    flush=True,
                )
    await client.close()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--platform", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--bare", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "results" / "engine.json")
    options = parser.parse_args()
    arms = [Arm("bare vLLM", options.bare, ""), Arm("Quarterdeck", options.platform, options.key)]
    results = asyncio.run(run(arms, options.model, options.rounds))
    print(f"\n{machine()}\n\n| arm | " + " | ".join(f"{n} streams tok/s | TTFT p50 ms" for n in STREAMS) + " |")
    print("|---|" + "--:|" * 2 * len(STREAMS))
    middle = {
        name: {n: tuple(statistics.median(v) for v in zip(*runs, strict=True)) for n, runs in by.items()}
        for name, by in results.items()
    }
    for name, by in middle.items():
        print(f"| {name} | " + " | ".join(f"{by[n][0]:.1f} | {by[n][1]:.0f}" for n in STREAMS) + " |")
    for n in STREAMS:
        print(f"ratio at {n} streams: {middle['Quarterdeck'][n][0] / middle['bare vLLM'][n][0]:.2f}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"machine": machine(), "rounds": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
