"""Keys with limits and budgets: their outcomes during outages, and waiting until a budget is known."""

import httpx
from tests.faults.client import Answer, Shape, ask
from tests.faults.stack import until

AWAY = "503 limits_unavailable"
"""A budget that denies, while Redis is unavailable."""
LIMITED = "429 rate_limit_exceeded"
"""One tenth of a limit is granted while Redis is unavailable."""
SHORT = Shape("chat", max_tokens=3)


async def counted(client: httpx.AsyncClient, outcome: str = "ok", shape: Shape = SHORT) -> list[Answer]:
    """Retry until the worker has counted the key's budget; before, requests are rejected. Returns the answers."""
    answers: list[Answer] = []

    async def is_answered() -> bool:
        answers.append(await ask(client, shape, "mixed-two"))
        return answers[-1].outcome == outcome

    await until(is_answered)
    return answers
