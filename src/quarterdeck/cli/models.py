"""`quarterdeck models`: what the platform serves, and whether it is ready."""

from collections.abc import Mapping
from typing import Any

import click

from quarterdeck.cli.client import answer, connected, mine
from quarterdeck.cli.table import columns


def state_of(name: str, readyz: Mapping[str, Any]) -> str:
    """The model's state in the gateway's `/readyz`; that route may be asked without a key."""
    models = readyz.get("models")
    found = models.get(name) if isinstance(models, Mapping) else None
    if isinstance(found, Mapping):
        words = [str(found[part]) for part in ("state", "status", "detail") if found.get(part)]
        return ": ".join(dict.fromkeys(words)) or "unknown"
    if isinstance(found, bool):
        return "ready" if found else "not ready"
    return str(found) if found else "unknown"


@click.command("models", short_help="List the models and whether they are ready.")
def command() -> None:
    """List the models of the running platform with their state."""
    user = mine()
    with connected(user.gateway_url, user.api_key) as client:
        listed = answer(client.get("/v1/models"))["data"]
        readyz = client.get("/readyz")
    state = readyz.json() if readyz.headers.get("content-type", "").startswith("application/json") else {}
    rows = [(m["id"], state_of(m["id"], state), str(m.get("owned_by", ""))) for m in listed]
    click.echo(columns(("MODEL", "STATE", "OWNED BY"), rows))
