"""`quarterdeck usage`: requests, tokens and money, summed up from the ledger."""

from datetime import UTC, datetime
from typing import Any

import click

from quarterdeck.cli.client import answer, as_admin
from quarterdeck.cli.table import columns
from quarterdeck.cli.terms import as_json, print_json

GROUPS = ("key", "team", "model", "route", "operation", "status", "user")
COUNTS = ("requests", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "cost", "saved")
_Time = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])


@click.command("usage", short_help="Sum up requests, tokens and money.")
@click.option("--by", "groups", type=click.Choice(GROUPS), multiple=True, help="A line each; may be repeated. [key]")
@click.option("--bucket", type=click.Choice(["hour", "day"]), help="A line for each of them.")
@click.option("--start", type=_Time, help="From then on, in UTC. Otherwise from the month's first day.")
@click.option("--end", type=_Time, help="Before then, in UTC. Otherwise until now.")
@click.option("--key", help="Only the key with this id.")
@click.option("--team", help="Only this team's.")
@click.option("--model", help="Only this model's.")
@as_json
def command(is_json: bool, **options: Any) -> None:
    """Sum up requests, tokens and money of a time, by key or otherwise. Money is exact."""
    with as_admin() as client:
        found = answer(client.get("/admin/usage", params=params_of(options)))
    if is_json:
        print_json(found)
        return
    if not found["data"]:
        click.echo("nothing was used", err=True)
        return
    names = [name for name in (*GROUPS, "start") if name in found["data"][0]]
    head = [name.upper() for name in (*names, *COUNTS)]
    click.echo(columns(head, [tuple(_cell(name, row[name]) for name in (*names, *COUNTS)) for row in found["data"]]))


def params_of(options: dict[str, Any]) -> dict[str, Any]:
    """The query of GET /admin/usage: what was not said is not sent."""
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
