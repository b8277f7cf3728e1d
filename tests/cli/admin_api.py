"""A fake admin API for the commands, and objects as the admin API returns them."""

import json
from pathlib import Path
from typing import Any

import httpx
from click.testing import CliRunner, Result

from quarterdeck.cli import credentials
from quarterdeck.cli.__main__ import cli

BUDGET = {"amount": "10", "period": "month", "on_exhausted": "deny"}


KEY = {
    "id": "key_1",
    "object": "api_key",
    "name": "ci",
    "team": "red",
    "hint": "abcd",
    "limits": {"max_tokens": 5},
    "budget": BUDGET,
    "priority": None,
    "tags": ["a", "b"],
    "models": None,
    "admin": False,
    "managed_by": "api",
    "created": 1_800_000_000,
    "expires": None,
    "revoked": None,
}


TEAM = {"id": "red", "object": "team", "limits": None, "budget": None, "priority": 3, "managed_by": "config"}


class AdminAPI:
    """Records requests, returns prepared answers, and runs commands against itself."""

    def __init__(self, state: Path) -> None:
        credentials.ensure(state, "http://gateway/v1")
        self.state = state
        self.requests: list[tuple[str, str, Any]] = []
        self.answers: dict[tuple[str, str], Any] = {}
        self.status = 200
        self.raw: set[str] = set()
        """Paths whose bodies are no JSON."""

    def handle(self, request: httpx.Request) -> httpx.Response:
        body: Any = request.content
        if request.url.path not in self.raw:
            body = json.loads(body) if body else dict(request.url.params.multi_items())
        self.requests.append((request.method, request.url.path, body))
        return httpx.Response(self.status, json=self.answers[request.method, request.url.path])

    def run(self, *words: str) -> Result:
        environ = {"QUARTERDECK_STATE": str(self.state)}
        return CliRunner().invoke(cli, words, obj=httpx.MockTransport(self.handle), env=environ)
