"""Simulates eight engines: how often each policy sends a prompt to one that has it cached, and what that saves.

Not a test and not a measurement of vLLM. The simulated engines prefill 8,000 tokens/s one prompt at a time, decode 40
tokens/s, run 32 requests at once and keep 200,000 tokens of prefixes, dropping the least recently used.
`.envs/core/bin/python tests/inference/routing/study.py`
"""

import json
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random
from statistics import quantiles

import msgspec

from quarterdeck.inference.endpoints.endpoint import Endpoint, EndpointSpec
from quarterdeck.inference.routing import policies
from quarterdeck.inference.routing.affinity import prefix_key

ENGINES, CACHE, PREFILL, DECODE = 8, 200_000, 8000.0, 40.0
TURNS, SYSTEM, QUESTION, ANSWER = 16, 400, 120, 150
"""Turns of a conversation; tokens of the shared system prompt, of each question and of each answer."""
Arrival = tuple[float, int, int]
POLICIES = ("weighted", "least_load", "power_of_two", "prefix")


@dataclass
class Engine:
    endpoint: Endpoint
    known: "OrderedDict[int, int]" = field(default_factory=OrderedDict)
    """Tokens of each conversation in its prefix cache."""
    is_free_at: float = 0.0

    def prefill(self, conversation: int, tokens: int, now: float) -> tuple[float, int]:
        """When the first token comes, and how many tokens the cache held."""
        cached = min(self.known.pop(conversation, 0), tokens)
        self.known[conversation] = tokens
        while sum(self.known.values()) > CACHE:
            self.known.popitem(last=False)
        self.is_free_at = max(self.is_free_at, now) + (tokens - cached) / PREFILL
        return self.is_free_at, cached


def arrivals(conversations_a_second: float, turns: int, seconds: float, random: Random) -> Iterator[Arrival]:
    """Time, conversation and turn of each request. Between two turns a user thinks for about 20 s."""
    at, number, heap = 0.0, 0, list[Arrival]()
    while at < seconds:
        at += random.expovariate(conversations_a_second)
        then = at
        for turn in range(turns):
            heappush(heap, (then, number, turn))
            then += random.expovariate(1 / 20)
        number += 1
    while heap:
        yield heappop(heap)


def run(policy: str, rate: float, turns: int, *, seed: int = 1) -> tuple[float, float, float]:
    """The share of prompt tokens that were cached; the median and 95th percentile of the time to the first token."""
    random = Random(seed)
    engines = [Engine(Endpoint(EndpointSpec(f"m#{n}", "m", "http://h", max_running=32))) for n in range(ENGINES)]
    by_id = {engine.endpoint.id: engine for engine in engines}
    endpoints = [engine.endpoint for engine in engines]
    affinity = policies.Affinity(endpoints)
    dice = Random(seed + 1).random
    leaving: list[tuple[float, str, int]] = []
    prompts = cached = 0
    waits = []
    for now, conversation, turn in arrivals(rate, turns, 400, random):
        while leaving and leaving[0][0] <= now:
            _, id, tokens = heappop(leaving)
            by_id[id].endpoint.load.end(tokens)
        prompt = SYSTEM + QUESTION + turn * (QUESTION + ANSWER)
        tokens = prompt + ANSWER
        if policy == "prefix":
            first = [{"role": "system", "content": "s" * SYSTEM}, {"role": "user", "content": str(conversation)}]
            more = [{"role": "assistant", "content": "a"}] * turn
            key = prefix_key({"messages": msgspec.Raw(json.dumps(first + more).encode())}, 1024)
            endpoint = affinity.choose(key, 1.25, tokens, now, ())
        else:
            endpoint = getattr(policies, policy)(endpoints, tokens, now, (), dice)
        assert endpoint is not None
        begun, held = by_id[endpoint.id].prefill(conversation, prompt, now)
        endpoint.load.begin(tokens)
        heappush(leaving, (begun + ANSWER / DECODE, endpoint.id, tokens))
        waits.append(begun - now)
        prompts += prompt
        cached += held
    cuts = quantiles(waits, n=20)
    return cached / prompts, cuts[9], cuts[18]


def main() -> None:
    for title, rate, turns in (("16 turns", 1.2, TURNS), ("no reuse: 1 turn", 40.0, 1)):
        print(f"\n{title}\n\n| policy | tokens cached | first token, median | p95 |\n|---|---:|---:|---:|")
        for policy in POLICIES:
            share, median, p95 = run(policy, rate, turns)
            print(f"| `{policy}` | {share:.0%} | {median * 1000:.0f} ms | {p95 * 1000:.0f} ms |")


if __name__ == "__main__":
    main()
