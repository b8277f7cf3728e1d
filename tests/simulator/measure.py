"""Measures the figures of docs/simulator.md: `python -m tests.simulator.measure`. Not a test: it prints.

The simulator runs on one core, the client on another. The client is a bare protocol, so that it costs less than the
server that it measures.
"""

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Callable
from typing import cast

import msgspec
import uvloop
from tests.simulator.harness import Process, user

CORES = sorted(os.sched_getaffinity(0))


class Client(asyncio.Protocol):
    """Repeats a request on one connection and records when data arrived."""

    def __init__(self, request: bytes, times: int, end: bytes, done: Callable[[], None]) -> None:
        self._request, self._left, self._end, self._done = request, times, end, done
        self._tail = b""
        self.came: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not of its class
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.came.append(time.perf_counter())
        self._tail = (self._tail + data)[-64:]
        if self._tail.endswith(self._end):
            self._tail = b""
            self._left -= 1
            if self._left:
                self._transport.write(self._request)
            else:
                self._transport.close()
                self._done()


def request_of(body: dict[str, object]) -> bytes:
    data = msgspec.json.encode(body)
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: "
    return f"{head}{len(data)}\r\n\r\n".encode() + data


async def drive(process: Process, body: dict[str, object], connections: int, times: int) -> tuple[float, list[Client]]:
    """Return the duration in seconds, and the clients."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    left = connections

    def done() -> None:
        nonlocal left
        left -= 1
        if not left:
            ended.set()

    end = b"[DONE]\n\n\r\n0\r\n\r\n" if body.get("stream") else b'"metrics":null}'
    clients: list[Client] = []

    def make() -> Client:
        clients.append(Client(request_of(body), times, end, done))
        return clients[-1]

    began = time.perf_counter()
    for _ in range(connections):
        await loop.create_connection(make, "127.0.0.1", process.port)
    await ended.wait()
    return time.perf_counter() - began, clients


def cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def start(*options: str) -> Process:
    process = Process(*options)
    os.sched_setaffinity(process.pid, {CORES[0]})
    return process


def measure_start(runs: int) -> None:
    took = []
    for _ in range(runs):
        began = time.perf_counter()
        process = start()
        took.append(time.perf_counter() - began)
        at_rest = resident_mb(process.pid)
        process.kill()
    print(f"start to listening: median {statistics.median(took):.2f} s of {runs}; resident {at_rest:.0f} MB")


def measure_streams(streams: int, tokens: int, gap_ms: float) -> None:
    process = start("--inter-token-latency", f"{gap_ms}ms", "--time-to-first-token", "1s", "--max-num-seqs", "100000")
    body: dict[str, object] = {"messages": user("hello"), "max_tokens": tokens, "ignore_eos": True, "stream": True}
    before = cpu_seconds(process.pid)
    _, clients = asyncio.run(drive(process, body, streams, 1))
    spent = cpu_seconds(process.pid) - before
    first = min(client.came[1] for client in clients)
    last = max(client.came[-1] for client in clients)
    gaps = [
        later - sooner for client in clients for sooner, later in zip(client.came[1:], client.came[2:], strict=False)
    ]
    gaps.sort()
    print(
        f"{streams} streams, a token each {gap_ms:g} ms: {streams * tokens / (last - first):,.0f} tokens/s "
        f"(asked {streams * 1000 / gap_ms:,.0f}), CPU {1e6 * spent / streams / tokens:.1f} µs a token, gap p50 "
        f"{1000 * gaps[len(gaps) // 2]:.1f} ms, p99 {1000 * gaps[len(gaps) * 99 // 100]:.1f} ms, "
        f"resident {resident_mb(process.pid):.0f} MB"
    )
    process.kill()


def measure_requests(connections: int, times: int, stream: bool) -> None:
    process = start()
    content = "The quick brown fox jumps over the lazy dog. " * 27
    body: dict[str, object] = {"messages": user(content), "max_tokens": 64, "ignore_eos": True, "stream": stream}
    before = cpu_seconds(process.pid)
    took, _ = asyncio.run(drive(process, body, connections, times))
    spent = cpu_seconds(process.pid) - before
    total = connections * times
    kind = "streamed, 64 tokens at once" if stream else "plain, 64 tokens"
    print(
        f"no latency, 1.2 KB prompts, {connections} connections, {kind}: {total / took:,.0f} requests/s, "
        f"CPU {1e6 * spent / total:.0f} µs a request"
    )
    process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, nargs="*", default=[500, 1000, 2000])
    options = parser.parse_args()
    os.sched_setaffinity(0, {CORES[-1]})
    uvloop.install()
    measure_start(5)
    for streams in options.streams:
        measure_streams(streams, 100, 20)
    measure_requests(32, 200, stream=False)
    measure_requests(32, 200, stream=True)


if __name__ == "__main__":
    main()
