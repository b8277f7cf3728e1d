"""Mixed requests of several teams and keys to two gateways: streams, faults, cache hits, canaries, cancellations."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from tests.faults.budgeted import AWAY
from tests.faults.client import Answer, Shape, ask
from tests.faults.stack import KEPT, Key

AT_ONCE = 24
PROMPT = "law/greet"
LABEL = "production"
USE: dict[str, Any] = {"prompt": {"id": PROMPT, "variables": {"who": "Ann"}}}
UNKNOWN = "unknown-model"
VERSION: dict[str, Any] = {
    "variables": {"who": {"type": "string"}},
    "model": "mixed-two",
    "parameters": {"temperature": 0.5},
}
QUESTIONS = 40
"""Different questions to the cached model."""


@dataclass(eq=False)
class Caller:
    """A key, and all that its requests were answered."""

    name: str
    team: str
    content: str
    share: int
    key: Key
    clients: Sequence[httpx.AsyncClient]
    """Of each gateway."""
    answers: list[Answer] = field(default_factory=list)

    async def close(self) -> None:
        for client in self.clients:
            await client.aclose()


@dataclass(frozen=True)
class Asked:
    """One request to send."""

    shape: Shape
    model: str
    leaves_after: int | None = None
    fields: dict[str, Any] = field(default_factory=dict)


def draw(chance: random.Random) -> Asked:
    kind = chance.choices(
        ["chat", "completions", "embeddings", "kept", "prompt", "prompt model", "leaves", "unknown", "no variable"],
        [26, 14, 10, 18, 10, 8, 10, 2, 2],
    )[0]
    stream = chance.random() < 0.6
    shape = Shape("chat", stream, stream and chance.random() < 0.5, max_tokens=chance.randint(1, 40))
    model = f"mixed-{chance.choice(['one', 'two', 'two', 'two'])}"
    match kind:
        case "completions":
            return Asked(Shape("completions", shape.stream, shape.asks_usage, shape.max_tokens), model)
        case "embeddings":
            return Asked(Shape("embeddings"), model.replace("mixed", "embed"))
        case "kept":
            words = f"question {chance.randrange(QUESTIONS)}"
            kept = Shape("chat", shape.stream, shape.stream, max_tokens=8)
            return Asked(kept, KEPT, fields={"messages": [{"role": "user", "content": words}]})
        case "prompt":
            return Asked(shape, "mixed-two", fields=USE)
        case "prompt model":
            fields = {"prompt": {"variables": {"who": "Ann"}}}
            return Asked(shape, f"prompt:{PROMPT}@{LABEL}", fields=fields)
        case "leaves":
            return Asked(Shape("chat", stream=True, max_tokens=200), model, chance.randint(1, 4))
        case "unknown":
            return Asked(shape, UNKNOWN)
        case "no variable":
            return Asked(shape, "mixed-two", fields={"prompt": {"id": PROMPT}})
    return Asked(shape, model)


async def send(chance: random.Random, callers: Sequence[Caller], count: int) -> None:
    """Send requests with bounded concurrency. One that a cold budget rejects is sent again."""
    left = iter(range(count))
    shares = [caller.share for caller in callers]

    async def one_after_another() -> None:
        while next(left, None) is not None:
            caller = chance.choices(callers, shares)[0]
            asked = draw(chance)
            client = chance.choice(caller.clients)
            while True:
                answer = await ask(
                    client,
                    asked.shape,
                    asked.model,
                    deadline=120,
                    leaves_after=asked.leaves_after,
                    **asked.fields,
                )
                if asked.model.startswith("prompt:"):
                    answer.model = "mixed-two"  # the version's
                caller.answers.append(answer)
                if answer.outcome != AWAY:
                    break
                await asyncio.sleep(0.1)

    await asyncio.gather(*(one_after_another() for _ in range(AT_ONCE)))
