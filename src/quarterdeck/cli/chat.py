"""`quarterdeck chat`: a model in the terminal, word by word."""

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import click
import httpx

from quarterdeck.cli.client import answer, connected, mine, readiness, said

Message = dict[str, str]


@click.command("chat", short_help="Talk to a model: one question, or a conversation.")
@click.argument("words", nargs=-1, metavar="[PROMPT]...")
@click.option("-m", "--model", help="Which model. Otherwise the first that is ready to chat.")
@click.option("-s", "--system", help="A system message to begin with.")
@click.option("--max-tokens", type=click.IntRange(1), help="At most so many tokens an answer.")
@click.option(
    "--temperature",
    type=click.FloatRange(0, 2),
    default=0.2,
    show_default=True,
    help="How freely it picks its words. A small model rambles at the API's own default of 1.",
)
def command(
    words: tuple[str, ...], model: str | None, system: str | None, max_tokens: int | None, temperature: float
) -> None:
    """Ask one question (as arguments, or on stdin), or without any begin a conversation.

    In a conversation an empty line or Ctrl-D ends it, Ctrl-C stops an answer: the engine stops with it.
    """
    user = mine()
    prompt = " ".join(words) or ("" if sys.stdin.isatty() else sys.stdin.read().strip())
    history: list[Message] = [{"role": "system", "content": system}] if system else []
    options = {"max_tokens": max_tokens, "temperature": temperature}
    with connected(user.gateway_url, user.api_key) as client:
        body: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        body["model"] = model or _first_chat_model(client)
        if prompt:
            _say(client, body, [*history, {"role": "user", "content": prompt}])
            return
        if not sys.stdin.isatty():
            raise click.UsageError("nothing to ask: give a prompt as arguments or on stdin")
        _converse(client, body, history)


def _converse(client: httpx.Client, body: dict[str, Any], history: list[Message]) -> None:
    click.echo(f"{body['model']}; an empty line ends the conversation.", err=True)
    while True:
        try:
            prompt = input("> ")
        except (EOFError, KeyboardInterrupt):
            click.echo(err=True)
            return
        if not prompt.strip():
            return
        history.append({"role": "user", "content": prompt})
        pieces: list[str] = []
        try:
            _say(client, body, history, pieces)
        except KeyboardInterrupt:
            click.echo(" …stopped", err=True)
        except click.ClickException as error:
            error.show()
            history.pop()
            continue
        history.append({"role": "assistant", "content": "".join(pieces)})


def _say(client: httpx.Client, body: dict[str, Any], messages: list[Message], pieces: list[str] | None = None) -> None:
    """Stream one answer to stdout, and into `pieces` for a conversation to remember."""
    request = {**body, "messages": messages, "stream": True}
    with client.stream("POST", "/v1/chat/completions", json=request) as response:
        if response.is_error:
            answer(response)
        for text in texts(response.iter_lines()):
            click.echo(text, nl=False)
            sys.stdout.flush()
            if pieces is not None:
                pieces.append(text)
    click.echo()


def texts(lines: Iterable[str]) -> Iterator[str]:
    """The pieces of text in a stream of server-sent events. Raises ClickException for an error event or a cut."""
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        event = json.loads(data)
        if message := said(event):
            raise click.ClickException(message)
        for choice in event.get("choices") or ():
            if text := (choice.get("delta") or {}).get("content"):
                yield text
    raise click.ClickException("the answer was cut off")


def _first_chat_model(client: httpx.Client) -> str:
    told = readiness(client)
    chatty = [name for name, model in told.items() if model.get("task") != "embed"]
    ready = [name for name in chatty if told[name].get("state") == "ready"]
    if not ready:
        raise click.ClickException(f"no model is ready to chat yet ({', '.join(chatty) or 'none is served'})")
    return ready[0]
