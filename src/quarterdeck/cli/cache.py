"""`quarterdeck cache`: shows and purges the response cache."""

from typing import Any

import click

from quarterdeck.cli.client import gateway_client, json_object, user_credentials

MIB = 1024 * 1024


@click.group("cache", short_help="Show or purge the response cache.")
def command() -> None:
    """Show or purge the response cache."""


@command.command("status")
def status() -> None:
    """Show the number of cached answers and their size."""
    user = user_credentials()
    with gateway_client(user.gateway_url, user.admin_key) as client:
        held = json_object(client.get("/admin/cache"))
    click.echo(cache_text(held))


def cache_text(held: dict[str, Any]) -> str:
    """The admin API's cache status in one line."""
    text = f"{held['entries']} answers, {held['bytes'] / MIB:.1f} of {held['max_bytes'] / MIB:.0f} MiB"
    return text if held["is_on"] else f"{text}; caching is not enabled for any model (`cache:` in quarterdeck.yaml)"


@command.command("purge")
@click.option("--model", help="Only answers of this model.")
@click.option("--key", help="Only the answer with this `x-cache-key`.")
def purge(model: str | None, key: str | None) -> None:
    """Remove cached answers: all of the organisation's, or those selected."""
    user = user_credentials()
    named = {name: value for name, value in (("model", model), ("key", key)) if value is not None}
    with gateway_client(user.gateway_url, user.admin_key) as client:
        result = json_object(client.delete("/admin/cache", params=named))
    click.echo(f"{result['deleted']} answers removed")
