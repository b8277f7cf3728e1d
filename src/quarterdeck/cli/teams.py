"""`quarterdeck teams`: teams, their limits, budgets and priorities."""

from typing import Any

import click

from quarterdeck.cli.client import admin_client, json_object, list_all, url_of
from quarterdeck.cli.limit_options import bounds, limit_fields, removals
from quarterdeck.cli.names import in_org, of_org, team_argument
from quarterdeck.cli.output import as_json, budget_text, limits_text, print_json, print_table, say, show

_priority = click.option("--priority", type=click.IntRange(0, 9), help="Priority of keys without their own.")


@click.group("teams", short_help="Create, list, update and delete teams.")
def command() -> None:
    """Create, list, update and delete teams."""


@command.command("create")
@click.argument("team")
@of_org
@_priority
@bounds
@as_json
def create(team: str, org: str | None, is_json: bool, **options: Any) -> None:
    """Create the team TEAM. Creating a key for a team also creates the team."""
    with admin_client() as client:
        made = json_object(client.post("/admin/teams", params=in_org(org), json={"id": team, **request_of(options)}))
    (print_json if is_json else show)(made)


def request_of(options: dict[str, Any], before: dict[str, Any] | None = None) -> dict[str, Any]:
    """The request fields of a team."""
    body = limit_fields(options, before)
    if options.get("priority") is not None:
        body["priority"] = options["priority"]
    return body


@command.command("list")
@of_org
@as_json
def list_teams(org: str | None, is_json: bool) -> None:
    """List teams by name."""
    with admin_client() as client:
        found = list(list_all(client, "/admin/teams", org=org))
    if is_json:
        print_json(found)
        return
    if not found:
        say("no teams", is_note=True)
        return
    rows = [
        (
            team["id"],
            limits_text(team["limits"]),
            budget_text(team["budget"]),
            str(team["priority"] or 0),
            _managed_by(team),
        )
        for team in found
    ]
    print_table(("TEAM", "LIMITS", "BUDGET", "PRIORITY", "MANAGED BY"), rows, ("MANAGED BY", "PRIORITY"))


@command.command("show")
@team_argument
@of_org
@as_json
def show_team(team: str, org: str | None, is_json: bool) -> None:
    """Show the limits, budget and priority of TEAM."""
    with admin_client() as client:
        found = json_object(client.get(url_of("/admin/teams", team), params=in_org(org)))
    (print_json if is_json else show)(found)


@command.command("update")
@team_argument
@of_org
@_priority
@bounds
@removals
@as_json
def update(team: str, org: str | None, is_json: bool, **options: Any) -> None:
    """Update TEAM. Values that are not given stay. Takes effect with the next request."""
    with admin_client() as client:
        before = json_object(client.get(url_of("/admin/teams", team), params=in_org(org)))
        body = request_of(options, before)
        if not body:
            raise click.UsageError("nothing to update: see `quarterdeck teams update --help`")
        changed = json_object(client.post(url_of("/admin/teams", team), params=in_org(org), json=body))
    (print_json if is_json else show)(changed)


@command.command("delete")
@team_argument
@of_org
@as_json
def delete(team: str, org: str | None, is_json: bool) -> None:
    """Delete TEAM. All of its keys must be revoked or moved first. Its usage stays in the ledger."""
    with admin_client() as client:
        done = json_object(client.delete(url_of("/admin/teams", team), params=in_org(org)))
    if is_json:
        print_json(done)
    else:
        click.echo(f"team {team} deleted")


def _managed_by(found: dict[str, Any]) -> str:
    return "quarterdeck.yaml" if found["managed_by"] == "config" else "admin API"
