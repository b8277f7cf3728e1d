"""`quarterdeck models`: models of the platform and their state."""

import click

from quarterdeck.cli.client import gateway_client, json_object, readiness, user_credentials
from quarterdeck.cli.output import print_table


@click.command("models", short_help="List models and their state.")
def command() -> None:
    """List models, adapters and aliases with their state."""
    user = user_credentials()
    with gateway_client(user.gateway_url, user.api_key) as client:
        listed = json_object(client.get("/v1/models"))["data"]
        states = readiness(client)
    rows = [
        (str(m["id"]), str(m.get("state", "")), states.get(str(m["root"]), {}).get("task", ""), _detail(m, states))
        for m in listed
    ]
    print_table(("MODEL", "STATE", "TASK", "DETAIL"), rows)


def _detail(model: dict[str, str], states: dict[str, dict[str, str]]) -> str:
    if model["root"] != model["id"]:
        return f"alias of {model['root']}"
    detail = states.get(model["id"], {}).get("detail", "")
    if parent := model.get("parent"):
        return f"adapter of {parent}: {detail}" if detail else f"adapter of {parent}"
    return detail
