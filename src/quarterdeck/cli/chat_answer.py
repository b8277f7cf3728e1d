"""One answer of a chat: asked, streamed to the terminal, and measured."""

import sys
import time
from dataclasses import dataclass, field
from typing import Any

import click
import httpx

from quarterdeck.cli.chat_stream import Usage, pieces, stats_text
from quarterdeck.cli.client import body_of, json_object
from quarterdeck.cli.output import answer_text

Message = dict[str, str]
COST_TRIES, COST_WAIT_SECONDS = 5, 0.2
"""The ledger has a request's cost a moment after its end."""


@dataclass(slots=True)
class Answer:
    """What has arrived so far. Times are in seconds from the request on."""

    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    usage: Usage | None = None
    first: float | None = None
    request_id: str = ""

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def reasoning(self) -> str:
        return "".join(self.thoughts)


class Asker:
    """Sends conversations. `body`: the request without its messages; `admin_key`: finds out what an answer cost."""

    def __init__(self, client: httpx.Client, body: dict[str, Any], *, admin_key: str, shows_stats: bool) -> None:
        self._client = client
        self.body = body
        self._admin_key = admin_key
        self.shows_stats = shows_stats

    def ask(self, messages: list[Message], answer: Answer, *, is_quiet: bool = False) -> None:
        """Stream an answer into `answer`, and unless `is_quiet` to the terminal. Raises ClickException."""
        request = {**self.body, "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
        started = time.monotonic()
        screen = _Screen(is_quiet=is_quiet)
        try:
            with self._client.stream("POST", "/v1/chat/completions", json=request) as response:
                answer.request_id = response.headers.get("x-request-id", "")
                if response.is_error:
                    json_object(response)
                for piece in pieces(response.iter_lines()):
                    if isinstance(piece, Usage):
                        answer.usage = piece
                        continue
                    if piece.kind != "waiting":
                        answer.first = answer.first or time.monotonic() - started
                        (answer.texts if piece.kind == "text" else answer.thoughts).append(piece.text)
                    screen.show(piece.kind, piece.text)
        finally:
            screen.end()
        if self.shows_stats and not is_quiet:
            total = time.monotonic() - started
            text = stats_text(
                answer.usage, answer.first, total, request_cost(self._client, self._admin_key, answer.request_id)
            )
            click.secho(f"[{text}]", dim=True, err=True)

    def models(self) -> list[str]:
        """The names that this key may use. Raises ClickException."""
        return [str(model["id"]) for model in json_object(self._client.get("/v1/models"))["data"]]


def request_cost(client: httpx.Client, admin_key: str, request_id: str) -> str | None:
    """What a request cost, in dollars. None: the key is no admin's, or the ledger does not have it yet."""
    headers = {"Authorization": f"Bearer {admin_key}"}
    for _ in range(COST_TRIES if request_id else 0):
        response = client.get(f"/admin/requests/{request_id}", headers=headers)
        if response.status_code == 200:
            return str(body_of(response)["cost"])
        if response.status_code != 404:
            return None
        time.sleep(COST_WAIT_SECONDS)
    return None


class _Screen:
    """Text on stdout; reasoning and the state of a loading model on stderr, where they do not disturb a pipe."""

    def __init__(self, *, is_quiet: bool) -> None:
        self._is_quiet = is_quiet
        self._last = ""
        self._state = ""
        self._is_live = sys.stderr.isatty()

    def show(self, kind: str, text: str) -> None:
        if self._is_quiet:
            return
        if kind == "waiting":
            self._wait(text)
            return
        self._clear()
        if kind != self._last and self._last == "reasoning":
            click.echo("\n", err=True)
        self._last = kind
        if kind == "reasoning":
            click.secho(answer_text(text), nl=False, dim=True, err=True)
        else:
            click.echo(answer_text(text), nl=False)
            sys.stdout.flush()

    def end(self) -> None:
        self._clear()
        if self._last:
            click.echo(err=self._last == "reasoning")

    def _wait(self, text: str) -> None:
        """A line that is written over on a terminal; elsewhere a line for each change but the seconds'."""
        if self._is_live:
            click.echo(f"\r\x1b[K{text}", nl=False, err=True)
        elif text.partition(" (")[0] != self._state.partition(" (")[0]:
            click.echo(text, err=True)
        self._state = text

    def _clear(self) -> None:
        if self._state and self._is_live:
            click.echo("\r\x1b[K", nl=False, err=True)
        self._state = ""
