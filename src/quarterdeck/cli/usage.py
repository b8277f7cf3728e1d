"""`quarterdeck usage`: requests, tokens and cost from the ledger."""

from datetime import UTC, datetime
from typing import Any

import click

from quarterdeck.cli.client import admin_client, json_object
from quarterdeck.cli.output import as_json, columns, print_json

GROUPS = ("key", "team", "model", "route", "operation", "status", "user")
COUNTS = ("requests", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "cost", "saved")
_Time = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])


@click.command("usage", short_help="Show requests, tokens and cost.")
@click.option("--by", "groups", type=click.Choice(GROUPS), multiple=True, help="Group by this; repeatable. [key]")
@click.option("--bucket", type=click.Choice(["hour", "day"]), help="Group by time.")
@click.option("--start", type=_Time, help="Start time, UTC. Default: first day of the month.")
@click.option("--end", type=_Time, help="End time (exclusive), UTC. Default: now.")
@click.option("--key", help="Only this key id.")
@click.option("--team", help="Only this team.")
@click.option("--model", help="Only this model.")
@as_json
def command(is_json: bool, **options: Any) -> None:
    """Show requests, tokens and exact cost of a period, by key or another group."""
    with admin_client() as client:
        found = json_object(client.get("/admin/usage", params=params_of(options)))
    if is_json:
        print_json(found)
        return
    if not found["data"]:
        click.echo("no usage", err=True)
        return
    names = [name for name in (*GROUPS, "start") if name in found["data"][0]]
    head = [name.upper() for name in (*names, *COUNTS)]
    click.echo(columns(head, [tuple(_cell(name, row[name]) for name in (*names, *COUNTS)) for row in found["data"]]))


def params_of(options: dict[str, Any]) -> dict[str, Any]:
    """The query of GET /admin/usage, without options that are not given."""
    params = {name: options.get(name) for name in ("bucket", "key", "team", "model")}
    for name in ("start", "end"):
        if (time := options.get(name)) is not None:
            params[name] = int(time.replace(tzinfo=UTC).timestamp())
    given = {name: value for name, value in params.items() if value is not None}
    return {"group_by": list(options.get("groups") or ("key",)), **given}


def _cell(name: str, value: Any) -> str:
    if name == "start":
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M")
    if name in ("cost", "saved"):
        return f"${value}"
    return "-" if value is None else str(value)
