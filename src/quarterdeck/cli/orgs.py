"""`quarterdeck orgs`: organisations and what each may take as a whole."""

from typing import Any

import click

from quarterdeck.cli.client import answer, as_admin, everything
from quarterdeck.cli.table import columns
from quarterdeck.cli.terms import as_json, asked, bounds, budget_text, limits_text, print_json, removals, show


@click.group("orgs", short_help="Create, list and change organisations.")
def command() -> None:
    """Create, list and change organisations. The platform's own is called `default`."""


@command.command("create")
@click.argument("org")
@bounds
@as_json
def create(org: str, is_json: bool, **options: Any) -> None:
    """Make an organisation called ORG. Its first key: `quarterdeck keys create NAME --org ORG --admin`."""
    with as_admin() as client:
        made = answer(client.post("/admin/organizations", json={"id": org, **asked(options)}))
    (print_json if is_json else show)(made)


@command.command("list")
@as_json
def list_orgs(is_json: bool) -> None:
    """List the organisations by name."""
    with as_admin() as client:
        found = list(everything(client, "/admin/organizations"))
    if is_json:
        print_json(found)
        return
    rows = [(org["id"], limits_text(org["limits"]), budget_text(org["budget"])) for org in found]
    click.echo(columns(("ORG", "LIMITS", "BUDGET"), rows))


@command.command("show")
@click.argument("org")
@as_json
def show_org(org: str, is_json: bool) -> None:
    """Say what ORG may take."""
    with as_admin() as client:
        found = answer(client.get(f"/admin/organizations/{org}"))
    (print_json if is_json else show)(found)


@command.command("update")
@click.argument("org")
@bounds
@removals
@as_json
def update(org: str, is_json: bool, **options: Any) -> None:
    """Change ORG; what is not said stays. It holds from its keys' next requests on."""
    with as_admin() as client:
        before = answer(client.get(f"/admin/organizations/{org}"))
        body = asked(options, before)
        if not body:
            raise click.UsageError("say what is to change: `quarterdeck orgs update --help`")
        changed = answer(client.post(f"/admin/organizations/{org}", json=body))
    (print_json if is_json else show)(changed)
