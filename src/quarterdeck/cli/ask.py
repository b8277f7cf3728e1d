"""`quarterdeck ask`: an agent in the terminal that knows the weather and the prices of stocks."""

import json
import sys
from typing import Any

import click
import httpx

from quarterdeck.cli.ask_steps import Agent, Step, totals
from quarterdeck.cli.ask_tools import Tools
from quarterdeck.cli.chat import first_chat_model, note_simulated
from quarterdeck.cli.client import gateway_client, json_object, readiness, user_credentials
from quarterdeck.cli.names import model_option
from quarterdeck.cli.output import answer_text, print_json, printable
from quarterdeck.cli.prompt_client import path_of
from quarterdeck.cli.suggestions import completer
from quarterdeck.settings.environment import Environment

SYSTEM = "Use the tools for current weather and stock prices, one call for each place or stock. Answer in one sentence."
MAX_SHOWN = 300
"""Characters of a call's arguments or result that a step shows."""


@click.command("ask", short_help="Ask an agent with weather and stock tools.")
@click.argument("words", nargs=-1, metavar="[QUESTION]...")
@model_option("-m", "--model", help_text="Model to use. Default: the prompt's, or the first chat model that is ready.")
@click.option("-s", "--system", help="System message, instead of the built-in one.")
@click.option(
    "-p",
    "--prompt",
    metavar="NAME[@LABEL|#VERSION]",
    shell_complete=completer("prompts"),
    help="Stored prompt: its system message, examples, parameters and response format.",
)
@click.option("--max-steps", type=click.IntRange(1, 50), default=8, show_default=True, help="Most model calls.")
@click.option("--max-tokens", type=click.IntRange(1), help="Maximum tokens per step.")
@click.option(
    "--tool-choice",
    type=click.Choice(["auto", "required", "weather", "stock"]),
    default="auto",
    show_default=True,
    help="Of the first step: small models may call no tool by themselves.",
)
@click.option("--json", "is_json", is_flag=True, help="Print answer, steps, tokens and cost as JSON.")
def command(
    words: tuple[str, ...],
    model: str | None,
    system: str | None,
    prompt: str | None,
    max_steps: int,
    max_tokens: int | None,
    tool_choice: str,
    is_json: bool,
) -> None:
    """Answer a question with tools: the weather of a place, the price of a stock.

    The model calls them through native tool calling (`/v1/responses`); this command executes the calls. Each step is
    shown on stderr with its tokens and cost, the answer on stdout. Costs need an admin's key.
    """
    user = user_credentials()
    question = " ".join(words) or ("" if sys.stdin.isatty() else sys.stdin.read().strip())
    if not question:
        raise click.UsageError('no question: pass it as arguments or on stdin, such as quarterdeck ask "…"')
    body: dict[str, Any] = {} if max_tokens is None else {"max_output_tokens": max_tokens}
    transport = click.get_current_context().find_object(httpx.BaseTransport)
    with gateway_client(user.gateway_url, user.api_key) as client, httpx.Client(transport=transport) as outside:
        has_format, states, own_model = False, readiness(client), None
        if prompt is not None:
            body["prompt"], version = _prompt(client, prompt)
            has_format = (version.get("response_format") or {}).get("type") in ("json_schema", "json_object")
            own_model = version.get("model")
        if model or not own_model:
            body["model"] = model = model or first_chat_model(states)
        if not is_json:
            note_simulated(states, str(model or own_model))
        if (instructions := system or (None if prompt is not None else SYSTEM)) is not None:
            body["instructions"] = instructions
        agent = Agent(
            client,
            user.admin_key,
            Tools(outside, Environment.read().variables),
            body,
            max_steps,
            tool_choice=None if tool_choice == "auto" else tool_choice,
            has_format=has_format,
            shows=(lambda step: None) if is_json else _show,
        )
        answer = agent.ask(question)
    if is_json:
        steps = [step.object for step in agent.steps]
        print_json({"answer": _parsed(answer) if has_format else answer, "steps": steps, **totals(agent.steps)})
        return
    click.echo(answer_text(answer))
    sums = totals(agent.steps)
    cost = "" if sums["cost"] is None else f", ${sums['cost']}"
    noun = "step" if len(agent.steps) == 1 else "steps"
    _note(f"{len(agent.steps)} {noun}, {sums['input_tokens']} + {sums['output_tokens']} tokens{cost}")


def _prompt(client: httpx.Client, given: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The request's reference to a prompt, and the version that it has now. Raises ClickException."""
    name, _, number = given.partition("#")
    name, _, label = (name, "", "") if number else given.partition("@")
    if not name or (number and not number.isdecimal()):
        raise click.UsageError(f"--prompt {given}: expected NAME, NAME@LABEL or NAME#VERSION")
    which = {"version": int(number)} if number else {"label": label or "production"}
    version = json_object(client.get(f"{path_of(client, name)}/versions/{number or label or 'production'}"))
    return {"id": name, **which}, version


def _show(step: Step) -> None:
    """A step as lines on stderr."""
    cost = "" if step.cost is None else f", ${step.cost}"
    _note(f"step {step.number}: {step.input_tokens} + {step.output_tokens} tokens{cost}, {step.seconds:.1f} s")
    for call in step.calls:
        result = json.dumps(call.result, ensure_ascii=False)
        _note(f"  {call.name}({_short(call.arguments)}) → {_short(result)}")


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


def _note(text: str) -> None:
    click.secho(printable(text), dim=True, err=True)


def _parsed(answer: str) -> Any:
    """An answer of a JSON form as its value; as it is where the model was cut."""
    try:
        return json.loads(answer)
    except ValueError:
        return answer
