"""Compares locust's figures with those of an independent client against the simulated engine.

    .envs/core/bin/python loadtests/witness.py      # 200 streams/s; exit status 1 above 2 % difference

The witness shares no code with `quarterdeck.load`: raw asyncio sockets, its own HTTP and percentiles. Locust's figures
come from its own table (`locust_stats.csv`). Medians over rounds in alternating order are compared.
"""

import argparse
import asyncio
import csv
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOAD = ROOT / ".envs" / "load" / "bin" / "python"
FIRST_TOKEN, GAP = "80ms", "12ms"
PROMPT = " ".join(["word"] * 60)


class Stream(asyncio.Protocol):
    """One connection: sends a request and records when each event with text arrives."""

    def __init__(self) -> None:
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def ask(self, request: bytes, due: float) -> asyncio.Future[None]:
        self.due, self.rest = due, b""
        self.times: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport.write(request)  # type: ignore[attr-defined]
        return self.done

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self.rest += data
        while (end := self.rest.find(b"\n\n")) >= 0:
            event, self.rest = self.rest[:end], self.rest[end + 2 :]
            start = event.find(b"data: ")
            if start >= 0 and event[start + 6 : start + 7] == b"{":
                choices = json.loads(event[start + 6 :])["choices"]
                if choices and choices[0]["delta"].get("content"):
                    self.times.append(now)
            elif b"data: [DONE]" in event:
                self.is_done = True
        if self.rest.endswith(b"0\r\n\r\n") and not self.done.done():
            self.rest = b""
            self.done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if hasattr(self, "done") and not self.done.done():
            self.done.set_exception(error or ConnectionError("closed"))


@dataclass
class Seen:
    """The measurements of one client in one round."""

    count: int = 0
    seconds: float = 0.0
    ttft: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        return {
            "requests/s": self.count / self.seconds,
            "tokens/s": (len(self.gaps) + self.count) / self.seconds,
            "TTFT mean": statistics.fmean(self.ttft),
            "TTFT p50": percentile(self.ttft, 0.5),
            "TTFT p99": percentile(self.ttft, 0.99),
            "ITL mean": statistics.fmean(self.gaps),
            "ITL p50": percentile(self.gaps, 0.5),
            "ITL p99": percentile(self.gaps, 0.99),
            "whole p50": percentile(self.total, 0.5),
            "whole p99": percentile(self.total, 0.99),
        }


def percentile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(q * len(ordered)), len(ordered) - 1)]


async def witness(port: int, rate: float, seconds: float, tokens: int) -> Seen:
    body = json.dumps(
        {
            "model": "simulated",
            "messages": [{"role": "user", "content": PROMPT}],
            "max_tokens": tokens,
            "ignore_eos": True,
            "stream": True,
        }
    ).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    loop = asyncio.get_running_loop()
    free: list[Stream] = []
    seen = Seen()

    async def one(due: float) -> None:
        while free and free[-1].closed:
            free.pop()
        stream = free.pop() if free else (await loop.create_connection(Stream, "127.0.0.1", port))[1]
        await stream.ask(request, due)
        times = stream.times
        seen.count += 1
        seen.ttft.append((times[0] - due) * 1e3)
        seen.gaps += [(b - a) * 1e3 for a, b in itertools.pairwise(times)]
        seen.total.append((time.perf_counter() - due) * 1e3)
        free.append(stream)

    start = time.perf_counter() + 0.2
    tasks = []
    for i in range(round(rate * seconds)):
        due = start + i / rate
        while (early := due - time.perf_counter()) > 0:  # noqa: ASYNC110  # it waits for a moment, not for an event
            await asyncio.sleep(max(0.0, early - 0.0003))
        tasks.append(asyncio.ensure_future(one(due)))
    await asyncio.gather(*tasks)
    seen.seconds = time.perf_counter() - start
    for stream in free:
        stream.transport.close()
    return seen


def locust(port: int, rate: float, seconds: float, tokens: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "witness.yaml"
        profile.write_text(
            f"arrivals: constant\nshape: {{kind: constant, level: {rate}}}\nduration: {seconds}\n"
            f"extra_body: {{ignore_eos: true}}\nscenarios:\n  stream: {{input_tokens: 60, max_tokens: {tokens}}}\n"
        )
        out = Path(folder) / "out"
        command = [str(LOAD), "-m", "quarterdeck.load", "run", str(profile), "--url", f"http://127.0.0.1:{port}"]
        subprocess.run([*command, "--out", str(out), "--no-report"], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
        with (out / "locust_stats.csv").open() as file:
            rows = {(row["Type"], row["Name"]): row for row in csv.DictReader(file)}
    whole, ttft, gaps = rows["SSE", "stream"], rows["TTFT", "stream"], rows["ITL", "stream"]
    return {
        "requests/s": float(whole["Requests/s"]),
        "tokens/s": float(gaps["Requests/s"]) + float(ttft["Requests/s"]),
        "TTFT mean": float(ttft["Average Response Time"]),
        "TTFT p50": float(ttft["50%"]),
        "TTFT p99": float(ttft["99%"]),
        "ITL mean": float(gaps["Average Response Time"]),
        "ITL p50": float(gaps["50%"]),
        "ITL p99": float(gaps["99%"]),
        "whole p50": float(whole["50%"]),
        "whole p99": float(whole["99%"]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--most", type=float, default=0.02, help="maximum relative difference")
    options = parser.parse_args()
    command = [sys.executable, "-m", "quarterdeck.simulator", "--model", "simulated", "--port", "0"]
    command += ["--time-to-first-token", FIRST_TOKEN, "--inter-token-latency", GAP, "--max-num-seqs", "4096"]
    engine = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert engine.stdout is not None
        port = int(engine.stdout.readline().rsplit(":", 1)[1])
        rounds: list[dict[str, dict[str, float]]] = []
        for number in range(options.rounds):
            found: dict[str, dict[str, float]] = {}
            for who in ("witness", "locust") if number % 2 else ("locust", "witness"):
                if who == "locust":
                    found[who] = locust(port, options.rate, options.seconds, options.tokens)
                else:
                    found[who] = asyncio.run(witness(port, options.rate, options.seconds, options.tokens)).figures()
            rounds.append(found)
            print(f"round {number + 1} of {options.rounds}", flush=True)
    finally:
        engine.terminate()
        engine.wait()
    what = f"{options.rate:.0f} streams/s of {options.tokens} tokens"
    print(f"\n{what}; medians of {options.rounds} rounds of {options.seconds:.0f} s\n")
    print(f"{'':12}{'witness':>12}{'locust':>12}{'difference':>12}")
    worst = 0.0
    for name in rounds[0]["witness"]:
        a, b = (statistics.median(found[who][name] for found in rounds) for who in ("witness", "locust"))
        worst = max(worst, abs(b / a - 1))
        print(f"{name:12}{a:12.2f}{b:12.2f}{b / a - 1:12.2%}")
    print(f"\nworst: {worst:.2%} (may be {options.most:.0%})")
    return 0 if worst <= options.most else 1


if __name__ == "__main__":
    sys.exit(main())
