"""`quarterdeck chat`: a streaming chat in the terminal."""

import sys
from typing import Any

import click

from quarterdeck.cli.chat_answer import Answer, Asker
from quarterdeck.cli.chat_session import Session, converse
from quarterdeck.cli.client import gateway_client, readiness, user_credentials
from quarterdeck.cli.names import model_option
from quarterdeck.cli.output import as_json, print_json, printable, say


@click.command("chat", short_help="Chat with a model.")
@click.argument("words", nargs=-1, metavar="[PROMPT]...")
@model_option("-m", "--model", help_text="Model to use. Default: the first chat model that is ready.")
@click.option("-s", "--system", help="System message.")
@click.option("--max-tokens", type=click.IntRange(1), help="Maximum tokens per answer.")
@click.option(
    "--temperature",
    type=click.FloatRange(0, 2),
    default=0.2,
    show_default=True,
    help="Sampling temperature. Small models ramble at the API's default of 1.",
)
@click.option("--stats", is_flag=True, help="Show tokens, speed and cost of each answer.")
@as_json
def command(
    words: tuple[str, ...], model: str | None, system: str | None, stats: bool, is_json: bool, **options: Any
) -> None:
    """Send one prompt (arguments or stdin), or start a conversation without one.

    In a conversation, /help lists the commands; Ctrl-D ends it. Ctrl-C stops the current answer, and the engine's work
    on it. Reasoning is printed dimmed, on stderr.
    """
    user = user_credentials()
    prompt = " ".join(words) or ("" if sys.stdin.isatty() else sys.stdin.read().strip())
    if not prompt and (is_json or not sys.stdin.isatty()):
        raise click.UsageError("no prompt: pass it as arguments or on stdin")
    body = {name: value for name, value in options.items() if value is not None}
    with gateway_client(user.gateway_url, user.api_key) as client:
        states = readiness(client)
        body["model"] = model or first_chat_model(states)
        asker = Asker(client, body, admin_key=user.admin_key, shows_stats=stats)
        session = Session(asker, system)
        if not prompt:
            converse(session, note=" (simulated)" if is_simulated(states, str(body["model"])) else "")
            return
        if not is_json:
            note_simulated(states, str(body["model"]))
        answer = session.ask(prompt, is_quiet=is_json)
    if is_json:
        print_json(_object(answer, str(body["model"])))


def is_simulated(models: dict[str, dict[str, str]], name: str) -> bool:
    return models.get(name, {}).get("detail") == "simulated"


def note_simulated(models: dict[str, dict[str, str]], name: str) -> None:
    """Say that a model's answers mean nothing, where it is simulated."""
    if is_simulated(models, name):
        say(f"{name} is simulated: its answers are made up", is_note=True)


def first_chat_model(models: dict[str, dict[str, str]]) -> str:
    """A chat model that is ready, else one that starts: the gateway holds the request. Raises ClickException."""
    chat_models = [name for name, model in models.items() if model.get("task") != "embed"]
    for state in ("ready", "idle", "starting"):
        for name in chat_models:
            if models[name].get("state") == state:
                return name
    raise click.ClickException(f"no chat model is ready ({printable(', '.join(chat_models)) or 'none configured'})")


def _object(answer: Answer, model: str) -> dict[str, Any]:
    usage = answer.usage
    return {
        "model": model,
        "content": answer.text,
        "reasoning": answer.reasoning or None,
        "usage": None if usage is None else {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens},
        "request_id": answer.request_id,
    }
