"""`quarterdeck models`: models that come and go while the platform runs."""

from typing import Any

import click

from quarterdeck.cli.client import gateway_client, json_object, readiness, user_credentials
from quarterdeck.cli.model_adapters import adapters
from quarterdeck.cli.model_options import given_fields, model_options
from quarterdeck.cli.model_progress import SETTLE_SECONDS, follow, wait_until_stopped
from quarterdeck.cli.model_pull import pull
from quarterdeck.cli.model_sources import resolve_source
from quarterdeck.cli.model_store import open_store
from quarterdeck.cli.model_text import show_model
from quarterdeck.cli.output import as_json, print_json, print_table, printable
from quarterdeck.cli.suggestions import completer

no_wait = click.option("--no-wait", is_flag=True, help="Return at once; the change goes on in the background.")


@click.group("models", short_help="List, add, pull, stop and remove models.", invoke_without_command=True)
@as_json
@click.pass_context
def command(context: click.Context, is_json: bool) -> None:
    """List models, adapters and aliases with their state; add, pull, stop and remove them while the platform runs.

    Models of quarterdeck.yaml are changed there, and take effect at once as well.
    """
    if context.invoked_subcommand is None:
        _list(is_json)


@command.command("list")
@as_json
def list_models(is_json: bool) -> None:
    """List models, adapters and aliases with their state."""
    _list(is_json)


@command.command("show")
@click.argument("name", shell_complete=completer("models"))
@as_json
def show(name: str, is_json: bool) -> None:
    """Show a model: its state, memory, replicas, KV cache, speed, and where its files are."""
    with open_store(reads=True) as store:
        found = store.retrieve(name)
    (print_json if is_json else show_model)(found)


@command.command("add")
@click.argument("source")
@click.option("--name", help="Public name, used as `model` in requests. [the source's own, in lower case]")
@model_options
@click.option("--stopped", is_flag=True, default=None, help="Add it without starting its engine.")
@no_wait
@as_json
def add(source: str, name: str | None, no_wait: bool, is_json: bool, **options: Any) -> None:
    """Add a model and start it.

    SOURCE is a repository on the Hugging Face hub (Qwen/Qwen2.5-0.5B-Instruct), a folder (./model) or a packaged model
    (packaged:smollm2-135m-instruct). Weights are downloaded first. HF_TOKEN, set where the platform was started, opens
    gated repositories; HF_ENDPOINT names another hub.
    """
    with open_store() as store:
        body = {"source": resolve_source(source, is_near=store.is_near), "name": name, **given_fields(options)}
        made = store.create({key: value for key, value in body.items() if value is not None})
        if not is_json:
            click.echo(f"added {printable(made['id'])}")
        if not (no_wait or made["stopped"]):
            made = follow(store, made["id"], is_quiet=is_json)
    if is_json:
        print_json(made)


@command.command("update")
@click.argument("name", shell_complete=completer("models"))
@model_options
@no_wait
@as_json
def update(name: str, no_wait: bool, is_json: bool, **options: Any) -> None:
    """Change an added model. Values that are not given stay. Requests in flight end on the old engine."""
    body = given_fields(options)
    if not body:
        raise click.UsageError("nothing to update: see `quarterdeck models update --help`")
    with open_store() as store:
        made = store.update(name, body)
        if not (no_wait or made["stopped"]):
            made = follow(store, made["id"], settle_seconds=SETTLE_SECONDS, is_quiet=is_json)
    if is_json:
        print_json(made)
    else:
        click.echo(f"updated {printable(made['id'])}")


@command.command("remove")
@click.argument("name", shell_complete=completer("models"))
@as_json
def remove(name: str, is_json: bool) -> None:
    """Remove an added model: its requests in flight end, then its engine stops. Downloaded weights stay."""
    with open_store() as store:
        done = store.delete(name)
    if is_json:
        print_json(done)
    else:
        click.echo(f"removed {printable(done['id'])}")


@command.command("stop")
@click.argument("name", shell_complete=completer("models"))
@no_wait
@as_json
def stop(name: str, no_wait: bool, is_json: bool) -> None:
    """Stop an added model's engine, after its requests in flight, and free its memory. It stays configured."""
    with open_store() as store:
        made = store.update(name, {"stopped": True})
        if not no_wait:
            made = wait_until_stopped(store, made["id"], is_quiet=is_json)
    if is_json:
        print_json(made)
    else:
        click.echo(f"stopped {printable(made['id'])}")


@command.command("start")
@click.argument("name", shell_complete=completer("models"))
@no_wait
@as_json
def start(name: str, no_wait: bool, is_json: bool) -> None:
    """Start a stopped model, or try one again that has failed."""
    with open_store() as store:
        made = store.update(name, {"stopped": False})
        if not no_wait:
            made = follow(store, made["id"], is_quiet=is_json)
    if is_json:
        print_json(made)


command.add_command(pull)
command.add_command(adapters)


def _list(is_json: bool) -> None:
    user = user_credentials()
    with gateway_client(user.gateway_url, user.api_key) as client:
        listed = json_object(client.get("/v1/models"))
        states = readiness(client)
    if is_json:
        print_json({**listed, "data": [{**states.get(str(each["root"]), {}), **each} for each in listed["data"]]})
        return
    rows = [
        (str(m["id"]), str(m.get("state", "")), states.get(str(m["root"]), {}).get("task", ""), _detail(m, states))
        for m in listed["data"]
    ]
    print_table(("MODEL", "STATE", "TASK", "DETAIL"), rows, ("TASK",))


def _detail(model: dict[str, str], states: dict[str, dict[str, str]]) -> str:
    if model["root"] != model["id"]:
        return f"alias of {model['root']}"
    detail = states.get(model["id"], {}).get("detail", "")
    if parent := model.get("parent"):
        return f"adapter of {parent}: {detail}" if detail else f"adapter of {parent}"
    return detail
