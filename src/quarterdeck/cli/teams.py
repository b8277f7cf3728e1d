"""`quarterdeck teams`: teams and what their keys may take together."""

from typing import Any

import click

from quarterdeck.cli.client import answer, as_admin, everything
from quarterdeck.cli.table import columns
from quarterdeck.cli.terms import as_json, asked, bounds, budget_text, limits_text, print_json, removals, show

_priority = click.option("--priority", type=click.IntRange(0, 9), help="Of its keys that have none of their own.")


@click.group("teams", short_help="Create, list, change and delete teams.")
def command() -> None:
    """Create, list, change and delete teams of the running platform."""


@command.command("create")
@click.argument("team")
@_priority
@bounds
@as_json
def create(team: str, is_json: bool, **options: Any) -> None:
    """Make a team called TEAM. (A key that is made for a team makes it as well.)"""
    with as_admin() as client:
        made = answer(client.post("/admin/teams", json={"id": team, **request_of(options)}))
    (print_json if is_json else show)(made)


def request_of(options: dict[str, Any], before: dict[str, Any] | None = None) -> dict[str, Any]:
    """What was said of a team or an organisation."""
    body = asked(options, before)
    if options.get("priority") is not None:
        body["priority"] = options["priority"]
    return body


@command.command("list")
@as_json
def list_teams(is_json: bool) -> None:
    """List the teams by name."""
    with as_admin() as client:
        found = list(everything(client, "/admin/teams"))
    if is_json:
        print_json(found)
        return
    rows = [
        (team["id"], limits_text(team["limits"]), budget_text(team["budget"]), str(team["priority"] or 0), _by(team))
        for team in found
    ]
    click.echo(columns(("TEAM", "LIMITS", "BUDGET", "PRIORITY", "SAID BY"), rows))


@command.command("show")
@click.argument("team")
@as_json
def show_team(team: str, is_json: bool) -> None:
    """Say what TEAM may take."""
    with as_admin() as client:
        found = answer(client.get(f"/admin/teams/{team}"))
    (print_json if is_json else show)(found)


@command.command("update")
@click.argument("team")
@_priority
@bounds
@removals
@as_json
def update(team: str, is_json: bool, **options: Any) -> None:
    """Change TEAM; what is not said stays. It holds from its keys' next requests on."""
    with as_admin() as client:
        before = answer(client.get(f"/admin/teams/{team}"))
        body = request_of(options, before)
        if not body:
            raise click.UsageError("say what is to change: `quarterdeck teams update --help`")
        changed = answer(client.post(f"/admin/teams/{team}", json=body))
    (print_json if is_json else show)(changed)


@command.command("delete")
@click.argument("team")
@as_json
def delete(team: str, is_json: bool) -> None:
    """Delete TEAM, whose keys are all revoked or moved. What it used stays in the ledger."""
    with as_admin() as client:
        done = answer(client.delete(f"/admin/teams/{team}"))
    if is_json:
        print_json(done)
    else:
        click.echo(f"{team} is deleted")


def _by(found: dict[str, Any]) -> str:
    return "quarterdeck.yaml" if found["managed_by"] == "config" else "the admin API"
