"""What a batch costs other requests: latency of a live chat alone and beside a batch, in turns, on a simulated engine
whose steps take twice as long when it is full. `python -m tests.faults.measure_batches [rounds]`"""

import shutil
import statistics
import sys
import time

from tests.faults.batch_stack import ENDED, BatchStack, chat_line
from tests.servers import RedisServer, short_folder

CONFIG = """
models: [{name: chat, engine: {source: ./chat, context: 4096}}]
"""
OPTIONS = ("--max-num-seqs", "64", "--time-factor-under-load", "2", "--time-to-first-token", "50ms")
SECONDS = 15.0
TOKENS = 40


def live(stack: BatchStack, seconds: float) -> list[float]:
    """Seconds that each of the chats takes, one after another."""
    found, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        stack.client().chat.completions.create(
            model="chat",
            messages=[{"role": "user", "content": f"{began}"}],
            max_tokens=TOKENS,
            extra_body={"ignore_eos": True},
        )
        found.append(time.monotonic() - began)
    return found


def main(rounds: int) -> None:
    folder = short_folder()
    redis = RedisServer(folder)
    redis.start()
    stack = BatchStack(
        folder, redis, f"sqlite+aiosqlite:///{folder}/quarterdeck.db", config=CONFIG,
        options=(*OPTIONS, "--inter-token-latency", "10ms"),
    )  # fmt: skip
    try:
        live(stack, 3)
        pairs = []
        for number in range(rounds):
            alone = live(stack, SECONDS)
            batch = stack.create([chat_line(at, max_tokens=TOKENS, ignore_eos=True) for at in range(5000)])
            live(stack, 3)
            beside = live(stack, SECONDS)
            done = stack.retrieve(batch).request_counts
            stack.client().batches.cancel(batch.id)
            stack.ended(batch)
            p95 = [statistics.quantiles(each, n=20)[18] for each in (alone, beside)]
            pairs.append(p95[1] / p95[0])
            said = f"{number}: p95 alone {p95[0]:.3f} s, beside a batch {p95[1]:.3f} s, ratio {pairs[-1]:.3f}"
            print(f"{said}; {done}", flush=True)
        print(f"median ratio {statistics.median(pairs):.3f}")
        began = time.monotonic()
        batch = stack.create([chat_line(at, max_tokens=TOKENS, ignore_eos=True) for at in range(1000)])
        while stack.retrieve(batch).status not in ENDED:
            time.sleep(0.5)
        print(f"idle engine: {1000 / (time.monotonic() - began):.0f} requests/s")
    finally:
        stack.stop()
        redis.stop()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
