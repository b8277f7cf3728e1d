"""`quarterdeck models`: what the platform serves, and whether it is ready."""

import click

from quarterdeck.cli.client import answer, connected, mine, readiness
from quarterdeck.cli.table import columns


@click.command("models", short_help="List the models and whether they are ready.")
def command() -> None:
    """List the models, adapters and aliases of the running platform with their state."""
    user = mine()
    with connected(user.gateway_url, user.api_key) as client:
        listed = answer(client.get("/v1/models"))["data"]
        told = readiness(client)
    rows = [
        (str(m["id"]), str(m.get("state", "")), told.get(str(m["root"]), {}).get("task", ""), _detail(m, told))
        for m in listed
    ]
    click.echo(columns(("MODEL", "STATE", "TASK", "DETAIL"), rows))


def _detail(model: dict[str, str], told: dict[str, dict[str, str]]) -> str:
    if model["root"] != model["id"]:
        return f"another name of {model['root']}"
    if parent := model.get("parent"):
        return f"adapter of {parent}"
    return told.get(model["id"], {}).get("detail", "")
