"""`quarterdeck keys`: API keys, managed through the gateway's admin API with the user's admin key."""

from typing import Any

import click

from quarterdeck.cli.client import admin_client, json_object, list_all
from quarterdeck.cli.limit_options import bounds, limit_fields, removals
from quarterdeck.cli.names import in_org, key_argument, key_id, model_option, of_org, team_option
from quarterdeck.cli.output import as_json, budget_text, local_time, print_json, print_table, printable, say, show


@click.group("keys", short_help="Create, list, update and revoke API keys.")
def command() -> None:
    """Create, list, update and revoke API keys."""


@command.command("create")
@click.argument("name")
@of_org
@team_option("Team of the key. Default: the default team.")
@model_option("--model", "models", multiple=True, help_text="Allowed model; repeatable. Default: all.")
@click.option("--priority", type=click.IntRange(0, 9), help="Queue priority; higher goes first.")
@click.option("--tag", "tags", multiple=True, help="Tag on its records and traces; repeatable.")
@click.option("--expires-in-days", type=click.IntRange(1), help="Days until it expires. Default: never.")
@click.option("--admin", is_flag=True, help="Allow it to use the admin API.")
@bounds
@as_json
def create(name: str, is_json: bool, **options: Any) -> None:
    """Create the key NAME. The key is printed once, alone on stdout; the server stores only a digest."""
    with admin_client() as client:
        made = json_object(client.post("/admin/keys", json=request_of(name, options)))
    _print_secret(made, is_json)


def request_of(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The body of POST /admin/keys, without options that are not given."""
    body = {
        "name": name,
        "org": options.get("org"),
        "team": options.get("team"),
        "models": list(options.get("models") or ()),
        "priority": options.get("priority"),
        "tags": list(options.get("tags") or ()),
        "expires_in_days": options.get("expires_in_days"),
        "admin": options.get("admin"),
        **limit_fields(options),
    }
    return {field: value for field, value in body.items() if value or (field == "priority" and value is not None)}


@command.command("list")
@team_option("Only keys of this team.")
@of_org
@as_json
def list_keys(team: str | None, org: str | None, is_json: bool) -> None:
    """List keys, newest first. Secrets are not shown; the server does not store them."""
    with admin_client() as client:
        found = list(list_all(client, "/admin/keys", team=team, org=org))
    if is_json:
        print_json(found)
        return
    if not found:
        say("no keys", is_note=True)
        return
    head = ("ID", "NAME", "TEAM", "KEY", "BUDGET", "CREATED", "STATE")
    print_table(head, [row_of(key) for key in found], ("CREATED", "KEY", "BUDGET", "TEAM"))


def row_of(key: dict[str, Any]) -> tuple[str, ...]:
    """A table row of a key."""
    state = "revoked" if key["revoked"] else f"until {local_time(key['expires'])}" if key["expires"] else "valid"
    admin = ", admin" if key["admin"] else ""
    budget = budget_text(key.get("budget"))
    return (key["id"], key["name"], key["team"], f"…{key['hint']}", budget, local_time(key["created"]), state + admin)


@command.command("show")
@key_argument
@of_org
@as_json
def show_key(key: str, org: str | None, is_json: bool) -> None:
    """Show a key's settings and what is spent of its budget."""
    with admin_client() as client:
        found = json_object(client.get(f"/admin/keys/{key_id(key, client, org)}", params=in_org(org)))
    (print_json if is_json else show)(found)


@command.command("update")
@key_argument
@of_org
@click.option("--name", help="New name.")
@team_option("New team. Past usage stays with the old team.")
@model_option("--model", "models", multiple=True, help_text="New allowed models; repeatable.")
@click.option("--all-models", is_flag=True, help="Allow all models.")
@click.option("--priority", type=click.IntRange(0, 9), help="Queue priority; higher goes first.")
@click.option("--tag", "tags", multiple=True, help="New tags; repeatable.")
@click.option("--no-tags", is_flag=True, help="Remove all tags.")
@click.option("--expires-in-days", type=click.IntRange(1), help="Days until it expires.")
@click.option("--never-expires", is_flag=True, help="Remove the expiry.")
@bounds
@removals
@as_json
def update(key: str, org: str | None, is_json: bool, **options: Any) -> None:
    """Update a key. Values that are not given stay. Takes effect with its next request."""
    with admin_client() as client:
        path = f"/admin/keys/{key_id(key, client, org)}"
        before = json_object(client.get(path, params=in_org(org)))
        changed = json_object(client.post(path, params=in_org(org), json=changes_of(options, before)))
    (print_json if is_json else show)(changed)


def changes_of(options: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """The body of POST /admin/keys/{id}. Raises UsageError for no change or a contradiction."""
    body = limit_fields(options, before)
    body |= {name: options[name] for name in ("name", "team", "priority") if options.get(name) is not None}
    for field, flag, empty in (
        ("models", "all_models", None),
        ("tags", "no_tags", []),
        ("expires_in_days", "never_expires", None),
    ):
        value = options.get(field)
        if value and options.get(flag):
            raise click.UsageError(f"--{flag.replace('_', '-')} can't be combined with a value")
        if value:
            body[field] = list(value) if isinstance(value, tuple) else value
        elif options.get(flag):
            body[field] = empty
    if not body:
        raise click.UsageError("nothing to update: see `quarterdeck keys update --help`")
    return body


@command.command("rotate")
@key_argument
@of_org
@as_json
def rotate(key: str, org: str | None, is_json: bool) -> None:
    """Replace the secret of a key. The new one is printed once; the old one stops working immediately."""
    with admin_client() as client:
        made = json_object(client.post(f"/admin/keys/{key_id(key, client, org)}/rotate", params=in_org(org)))
    _print_secret(made, is_json)


@command.command("revoke")
@key_argument
@of_org
@as_json
def revoke(key: str, org: str | None, is_json: bool) -> None:
    """Revoke a key. Takes effect with its next request."""
    with admin_client() as client:
        found = key_id(key, client, org)
        done = json_object(client.delete(f"/admin/keys/{found}", params=in_org(org)))
    if is_json:
        print_json(done)
    else:
        click.echo(f"key {printable(found)} revoked")


def _print_secret(made: dict[str, Any], is_json: bool) -> None:
    if is_json:
        print_json(made)
        return
    click.echo(f"{printable(made['id'])} ({printable(made['name'])}); the key is shown only once:", err=True)
    click.echo(printable(made["key"]))
