"""`quarterdeck context`: named platforms, as kubectl's contexts."""

import sys
from pathlib import Path

import click

from quarterdeck.cli import contexts, target
from quarterdeck.cli.contexts import LOCAL, Context, Contexts
from quarterdeck.cli.output import as_json, print_json, print_table
from quarterdeck.settings.environment import Environment


@click.group("context", short_help="Save, list and switch between platforms.")
def command() -> None:
    """Save, list and switch between platforms. Commands use the context in use, or that of --context.

    `local` is the platform on this machine. Contexts and their keys are stored in ~/.config/quarterdeck/contexts.toml
    (QUARTERDECK_CONTEXTS), which only this user can read.
    """


@command.command("set")
@click.argument("name")
@click.option("--url", help="URL of the gateway.")
@click.option("--key", help="A key of that platform. Other users can see it while this runs: prefer --key-file.")
@click.option(
    "--key-file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="File with the key; - is standard input. Default: ask for it.",
)
@click.option("--use", is_flag=True, help="Use it from now on.")
def set_context(name: str, url: str | None, key: str | None, key_file: Path | None, use: bool) -> None:
    """Save the platform NAME, or change its URL or key."""
    file, saved = _read()
    old = saved.named.get(name)
    address = url or (old.url if old else None)
    if address is None:
        raise click.UsageError("a new context needs --url")
    target.check_url(address, "--url")
    if key is not None and key_file is not None:
        raise click.UsageError("--key and --key-file exclude each other")
    if key is None and key_file is not None:
        key = target.read_key(key_file)
    if key is None and (old is None or url not in (None, old.url)):
        if not sys.stdin.isatty():
            raise click.UsageError("a key is needed: --key-file FILE, or --key-file - for standard input")
        key = click.prompt("API key", hide_input=True, err=True)
    value = key if key is not None else old.key if old else ""
    target.check_key(value.strip(), "the key")
    changed = saved.with_context(name, Context(address.rstrip("/").removesuffix("/v1"), value.strip()))
    contexts.write(file, changed.using(name) if use else changed)
    click.echo(f"context {name} saved{', and in use' if use else ''}: {changed.named[name].url}")
    if not use and changed.current != name:
        click.echo(f"use it: quarterdeck context use {name}", err=True)


@command.command("use")
@click.argument("name")
def use_context(name: str) -> None:
    """Use the platform NAME from now on; `local` is the one on this machine."""
    file, saved = _read()
    contexts.write(file, saved.using(name))
    click.echo(f"context {name} is in use")


@command.command("list")
@as_json
def list_contexts(is_json: bool) -> None:
    """List contexts. Keys are not shown."""
    _, saved = _read()
    rows = [(LOCAL, "the platform on this machine", saved.current is None)]
    rows += [(name, context.url, saved.current == name) for name, context in sorted(saved.named.items())]
    if is_json:
        print_json([{"name": name, "url": None if name == LOCAL else url, "current": used} for name, url, used in rows])
        return
    print_table(("IN USE", "CONTEXT", "URL"), [("*" if used else "", name, url) for name, url, used in rows])


@command.command("current")
@as_json
def show_current(is_json: bool) -> None:
    """Show which platform commands talk to, and why."""
    chosen = target.current()
    where = "this machine" if chosen.is_local else chosen.url or "a release in a cluster"
    origin = chosen.origin or ("command line" if chosen.url or chosen.is_cluster else "no context is in use")
    if is_json:
        print_json({"url": chosen.url, "local": chosen.is_local, "origin": origin})
        return
    click.echo(f"{where} ({origin})")


@command.command("delete")
@click.argument("name")
def delete_context(name: str) -> None:
    """Delete the context NAME and its key. The platform stays as it is."""
    file, saved = _read()
    contexts.write(file, saved.without(name))
    click.echo(f"context {name} deleted{': local is in use' if saved.current == name else ''}")


def _read() -> tuple[Path, Contexts]:
    """Raises ClickException. Warns of a file that others can read."""
    try:
        file = contexts.path_of(Environment.read().variables)
        saved = contexts.read(file)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    if problem := contexts.access_problem(file):
        click.echo(f"Warning: {problem}", err=True)
    return file, saved
