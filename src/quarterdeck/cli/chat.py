"""`quarterdeck chat`: a streaming chat in the terminal."""

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import click
import httpx

from quarterdeck.cli.client import error_message, gateway_client, json_object, readiness, user_credentials
from quarterdeck.cli.output import answer_text, printable

Message = dict[str, str]


@click.command("chat", short_help="Chat with a model.")
@click.argument("words", nargs=-1, metavar="[PROMPT]...")
@click.option("-m", "--model", help="Model to use. Default: the first chat model that is ready.")
@click.option("-s", "--system", help="System message.")
@click.option("--max-tokens", type=click.IntRange(1), help="Maximum tokens per answer.")
@click.option(
    "--temperature",
    type=click.FloatRange(0, 2),
    default=0.2,
    show_default=True,
    help="Sampling temperature. Small models ramble at the API's default of 1.",
)
def command(
    words: tuple[str, ...], model: str | None, system: str | None, max_tokens: int | None, temperature: float
) -> None:
    """Send one prompt (arguments or stdin), or start a conversation without one.

    An empty line or Ctrl-D ends the conversation. Ctrl-C stops the current answer, and the engine's work on it.
    """
    user = user_credentials()
    prompt = " ".join(words) or ("" if sys.stdin.isatty() else sys.stdin.read().strip())
    history: list[Message] = [{"role": "system", "content": system}] if system else []
    options = {"max_tokens": max_tokens, "temperature": temperature}
    with gateway_client(user.gateway_url, user.api_key) as client:
        body: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        body["model"] = model or _first_chat_model(client)
        if prompt:
            _send(client, body, [*history, {"role": "user", "content": prompt}])
            return
        if not sys.stdin.isatty():
            raise click.UsageError("no prompt: pass it as arguments or on stdin")
        _converse(client, body, history)


def _converse(client: httpx.Client, body: dict[str, Any], history: list[Message]) -> None:
    click.echo(f"{body['model']}; enter an empty line to end the conversation.", err=True)
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
            _send(client, body, history, pieces)
        except KeyboardInterrupt:
            click.echo(" …stopped", err=True)
        except click.ClickException as error:
            error.show()
            history.pop()
            continue
        history.append({"role": "assistant", "content": "".join(pieces)})


def _send(client: httpx.Client, body: dict[str, Any], messages: list[Message], pieces: list[str] | None = None) -> None:
    """Stream one answer to stdout and into `pieces`, the conversation's history."""
    request = {**body, "messages": messages, "stream": True}
    with client.stream("POST", "/v1/chat/completions", json=request) as response:
        if response.is_error:
            json_object(response)
        for text in texts(response.iter_lines()):
            click.echo(answer_text(text), nl=False)
            sys.stdout.flush()
            if pieces is not None:
                pieces.append(text)
    click.echo()


def texts(lines: Iterable[str]) -> Iterator[str]:
    """Yield the text chunks of a stream. Raises ClickException for an error event or an incomplete stream."""
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        event = json.loads(data)
        if message := error_message(event):
            raise click.ClickException(printable(message, keep="\n"))
        for choice in event.get("choices") or ():
            if text := (choice.get("delta") or {}).get("content"):
                yield text
    raise click.ClickException("the answer is incomplete: the stream ended early")


def _first_chat_model(client: httpx.Client) -> str:
    models = readiness(client)
    chat_models = [name for name, model in models.items() if model.get("task") != "embed"]
    ready = [name for name in chat_models if models[name].get("state") == "ready"]
    if not ready:
        raise click.ClickException(f"no chat model is ready yet ({', '.join(chat_models) or 'none configured'})")
    return ready[0]
