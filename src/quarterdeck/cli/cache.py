"""`quarterdeck cache`: what the cache of answers holds, and how it is made to forget."""

from typing import Any

import click

from quarterdeck.cli.client import answer, connected, mine

MIB = 1024 * 1024


@click.group("cache", short_help="Say what the cache holds, or make it forget.")
def command() -> None:
    """Say what the cache of answers holds, or make it forget."""


@command.command("status")
def status() -> None:
    """Say how many answers are kept, and how much room they take."""
    user = mine()
    with connected(user.gateway_url, user.admin_key) as client:
        held = answer(client.get("/admin/cache"))
    click.echo(told(held))


def told(held: dict[str, Any]) -> str:
    """The cache as the admin API tells it, in a line."""
    room = f"{held['entries']} answers, {held['bytes'] / MIB:.1f} of {held['max_bytes'] / MIB:.0f} MiB"
    return room if held["is_on"] else f"{room}; `cache:` of quarterdeck.yaml turns it on for no model"


@command.command("purge")
@click.option("--model", help="Only the answers of this model.")
@click.option("--key", help="Only this answer: its `x-cache-key` header.")
def purge(model: str | None, key: str | None) -> None:
    """Forget answers: all of the organisation, or those that are named."""
    user = mine()
    named = {name: value for name, value in (("model", model), ("key", key)) if value is not None}
    with connected(user.gateway_url, user.admin_key) as client:
        gone = answer(client.delete("/admin/cache", params=named))
    click.echo(f"{gone['deleted']} answers forgotten")
