"""`quarterdeck orgs`: organisations, their limits and budgets."""

from typing import Any

import click
import httpx

from quarterdeck.cli.client import admin_client, json_object, list_all, url_of
from quarterdeck.cli.limit_options import bounds, limit_fields, removals
from quarterdeck.cli.names import org_argument
from quarterdeck.cli.output import as_json, budget_text, limits_text, print_json, print_table, printable, show


@click.group("orgs", short_help="Create, list, update and delete organisations.")
def command() -> None:
    """Create, list, update and delete organisations. The platform's own is `default`."""


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
    print_table(("ORG", "LIMITS", "BUDGET"), rows)


@command.command("show")
@org_argument
@as_json
def show_org(org: str, is_json: bool) -> None:
    """Show the limits and budget of ORG."""
    with admin_client() as client:
        found = json_object(client.get(url_of("/admin/organizations", org)))
    (print_json if is_json else show)(found)


@command.command("update")
@org_argument
@bounds
@removals
@as_json
def update(org: str, is_json: bool, **options: Any) -> None:
    """Update ORG. Values that are not given stay. Takes effect with the next request."""
    with admin_client() as client:
        before = json_object(client.get(url_of("/admin/organizations", org)))
        body = limit_fields(options, before)
        if not body:
            raise click.UsageError("nothing to update: see `quarterdeck orgs update --help`")
        changed = json_object(client.post(url_of("/admin/organizations", org), json=body))
    (print_json if is_json else show)(changed)


@command.command("delete")
@org_argument
@click.option("--yes", is_flag=True, help="Do not ask; revoke its keys.")
@as_json
def delete(org: str, yes: bool, is_json: bool) -> None:
    """Delete ORG: revoke its keys, delete its teams, prompts, webhooks and stored inputs and outputs.

    Its usage stays in the ledger (`quarterdeck usage --org ORG`), and ORG can't be created again.
    """
    with admin_client() as client:
        found = json_object(client.get(url_of("/admin/organizations", org)))
        if not yes:
            click.echo(_what_is_deleted(client, found), err=True)
            click.confirm(f"Delete {org}?", abort=True, err=True)
        done = json_object(client.delete(url_of("/admin/organizations", org), params={"revoke_keys": "true"}))
    if is_json:
        print_json(done)
    else:
        click.echo(f"organisation {org} deleted, {done['revoked_keys']} keys revoked")


def _what_is_deleted(client: httpx.Client, org: dict[str, Any]) -> str:
    keys = [key["name"] for key in list_all(client, "/admin/keys", org=org["id"]) if not key["revoked"]]
    named = f" ({', '.join(keys[:5])}{', …' if len(keys) > 5 else ''})" if keys else ""
    return (
        f"{org['id']} has {len(keys)} valid keys{printable(named)}: they are revoked. Its teams, prompts, webhooks and"
        " stored inputs and outputs are deleted. Its usage stays in the ledger. This can't be undone."
    )
