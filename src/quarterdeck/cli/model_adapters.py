"""`quarterdeck models adapters`: LoRA adapters of models."""

import click

from quarterdeck.cli.model_sources import folder_source
from quarterdeck.cli.model_store import open_store
from quarterdeck.cli.output import as_json, print_json, print_table, printable, say
from quarterdeck.cli.suggestions import completer
from quarterdeck.resources.models.requests import default_name


@click.group("adapters")
def adapters() -> None:
    """List, add and remove LoRA adapters."""


@adapters.command("list")
@click.argument("model", required=False, shell_complete=completer("models"))
@as_json
def list_adapters(model: str | None, is_json: bool) -> None:
    """List adapters, of all models or of MODEL."""
    with open_store(reads=True) as store:
        found = store.adapters(model)
    if is_json:
        print_json({"object": "list", "data": found})
    elif found:
        rows = [(each["id"], each["model"], str(each.get("state", "")), str(each["source"])) for each in found]
        print_table(("ADAPTER", "MODEL", "STATE", "SOURCE"), rows)
    else:
        say("no adapters", is_note=True)


@adapters.command("add")
@click.argument("model", shell_complete=completer("models"))
@click.argument("folder")
@click.option("--name", help="Public name, used as `model` in requests. [the folder's own]")
@as_json
def add(model: str, folder: str, name: str | None, is_json: bool) -> None:
    """Add the adapter in FOLDER (PEFT format) to MODEL. A model without room for adapters starts anew."""
    with open_store() as store:
        source = folder_source(folder, "adapter_config.json", is_near=store.is_near)
        made = store.add_adapter({"model": model, "name": name or default_name(source), "source": source})
    if is_json:
        print_json(made)
    else:
        click.echo(f"added {printable(made['id'])} to {printable(made['model'])}")


@adapters.command("remove")
@click.argument("name", shell_complete=completer("adapters"))
@as_json
def remove(name: str, is_json: bool) -> None:
    """Remove an adapter."""
    with open_store() as store:
        done = store.remove_adapter(name)
    if is_json:
        print_json(done)
    else:
        click.echo(f"removed {printable(done['id'])}")
