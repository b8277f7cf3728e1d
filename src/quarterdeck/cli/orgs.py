"""`quarterdeck orgs`: organisations, their limits and budgets."""

from typing import Any

import click

from quarterdeck.cli.client import admin_client, json_object, list_all
from quarterdeck.cli.limit_options import bounds, limit_fields, removals
from quarterdeck.cli.output import as_json, budget_text, columns, limits_text, print_json, show


@click.group("orgs", short_help="Create, list and update organisations.")
def command() -> None:
    """Create, list and update organisations. The platform's own is `default`."""


@command.command("create")
@click.argument("org")
@bounds
@as_json
def create(org: str, is_json: bool, **options: Any) -> None:
    """Create the organisation ORG. Create its first key with `quarterdeck keys create NAME --org ORG --admin`."""
    with admin_client() as client:
        made = json_object(client.post("/admin/organizations", json={"id": org, **limit_fields(options)}))
    (print_json if is_json else show)(made)


@command.command("list")
@as_json
def list_orgs(is_json: bool) -> None:
    """List organisations by name."""
    with admin_client() as client:
        found = list(list_all(client, "/admin/organizations"))
    if is_json:
        print_json(found)
        return
    rows = [(org["id"], limits_text(org["limits"]), budget_text(org["budget"])) for org in found]
    click.echo(columns(("ORG", "LIMITS", "BUDGET"), rows))


@command.command("show")
@click.argument("org")
@as_json
def show_org(org: str, is_json: bool) -> None:
    """Show the limits and budget of ORG."""
    with admin_client() as client:
        found = json_object(client.get(f"/admin/organizations/{org}"))
    (print_json if is_json else show)(found)


@command.command("update")
@click.argument("org")
@bounds
@removals
@as_json
def update(org: str, is_json: bool, **options: Any) -> None:
    """Update ORG. Values that are not given stay. Takes effect with the next request."""
    with admin_client() as client:
        before = json_object(client.get(f"/admin/organizations/{org}"))
        body = limit_fields(options, before)
        if not body:
            raise click.UsageError("nothing to update: see `quarterdeck orgs update --help`")
        changed = json_object(client.post(f"/admin/organizations/{org}", json=body))
    (print_json if is_json else show)(changed)
