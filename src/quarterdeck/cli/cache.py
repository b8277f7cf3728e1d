"""`quarterdeck cache`: shows and purges the response cache."""

from typing import Any

import click

from quarterdeck.cli.client import admin_client, json_object
from quarterdeck.cli.names import model_option
from quarterdeck.cli.output import as_json, print_json, say

MIB = 1024 * 1024


@click.group("cache", short_help="Show or purge the response cache.")
def command() -> None:
    """Show or purge the response cache."""


@command.command("status")
@as_json
def status(is_json: bool) -> None:
    """Show the number of cached answers and their size."""
    with admin_client() as client:
        held = json_object(client.get("/admin/cache"))
    if is_json:
        print_json(held)
    else:
        say(cache_text(held))


def cache_text(held: dict[str, Any]) -> str:
    """The admin API's cache status in one line."""
    text = f"{held['entries']} answers, {held['bytes'] / MIB:.1f} of {held['max_bytes'] / MIB:.0f} MiB"
    return text if held["is_on"] else f"{text}; caching is not enabled for any model (`cache:` in quarterdeck.yaml)"


@command.command("purge")
@model_option("--model", help_text="Only answers of this model.")
@click.option("--key", help="Only the answer with this `x-cache-key`.")
@as_json
def purge(model: str | None, key: str | None, is_json: bool) -> None:
    """Remove cached answers: all of the organisation's, or those selected."""
    named = {name: value for name, value in (("model", model), ("key", key)) if value is not None}
    with admin_client() as client:
        result = json_object(client.delete("/admin/cache", params=named))
    if is_json:
        print_json(result)
    else:
        click.echo(f"{result['deleted']} answers removed")
