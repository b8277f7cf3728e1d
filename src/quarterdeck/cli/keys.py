"""`quarterdeck keys`: API keys, made, changed and revoked through the gateway's admin API with the user's admin key."""

from typing import Any

import click
import httpx

from quarterdeck.cli.client import answer, as_admin, everything
from quarterdeck.cli.table import columns
from quarterdeck.cli.terms import as_json, asked, bounds, budget_text, day, print_json, removals, show


@click.group("keys", short_help="Create, list, change and revoke API keys.")
def command() -> None:
    """Create, list, change and revoke API keys of the running platform."""


@command.command("create")
@click.argument("name")
@click.option("--org", help="Whose key it is, for admins of the platform. Otherwise your own organisation's.")
@click.option("--team", help="Whose usage it counts as. Otherwise the default team.")
@click.option("--model", "models", multiple=True, help="A model it may use; may be repeated. None: all.")
@click.option("--priority", type=click.IntRange(0, 9), help="Under saturation the higher goes first.")
@click.option("--tag", "tags", multiple=True, help="Put on its records and traces; may be repeated.")
@click.option("--expires-in-days", type=click.IntRange(1), help="Refused afterwards. None: never.")
@click.option("--admin", is_flag=True, help="It may manage keys.")
@bounds
@as_json
def create(name: str, is_json: bool, **options: Any) -> None:
    """Make a key called NAME. It is shown once, alone on stdout: the server keeps its digest only."""
    with as_admin() as client:
        made = answer(client.post("/admin/keys", json=request_of(name, options)))
    _tell_secret(made, is_json)


def request_of(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The body of POST /admin/keys: what was not said is not sent."""
    body = {
        "name": name,
        "org": options.get("org"),
        "team": options.get("team"),
        "models": list(options.get("models") or ()),
        "priority": options.get("priority"),
        "tags": list(options.get("tags") or ()),
        "expires_in_days": options.get("expires_in_days"),
        "admin": options.get("admin"),
        **asked(options),
    }
    return {field: value for field, value in body.items() if value or (field == "priority" and value is not None)}


@command.command("list")
@click.option("--team", help="Only this team's.")
@as_json
def list_keys(team: str | None, is_json: bool) -> None:
    """List the keys, newest first. None shows its secret: the server does not have it."""
    with as_admin() as client:
        found = list(everything(client, "/admin/keys", team=team))
    if is_json:
        print_json(found)
        return
    head = ("ID", "NAME", "TEAM", "KEY", "BUDGET", "CREATED", "STATE")
    click.echo(columns(head, [row_of(key) for key in found]))


def row_of(key: dict[str, Any]) -> tuple[str, ...]:
    """A key as the admin API tells it, in columns."""
    state = "revoked" if key["revoked"] else f"until {day(key['expires'])}" if key["expires"] else "valid"
    admin = ", admin" if key["admin"] else ""
    budget = budget_text(key.get("budget"))
    return (key["id"], key["name"], key["team"], f"…{key['hint']}", budget, day(key["created"]), state + admin)


@command.command("show")
@click.argument("key", metavar="NAME|ID")
@as_json
def show_key(key: str, is_json: bool) -> None:
    """Say all about a key but the key, and what is spent of its budget."""
    with as_admin() as client:
        found = answer(client.get(f"/admin/keys/{id_of(key, client)}"))
    (print_json if is_json else show)(found)


def id_of(key: str, client: httpx.Client) -> str:
    """An id is what it is; a name is looked up among the keys that are not revoked. Raises ClickException."""
    if key.startswith("key_"):
        return key
    ids: list[str] = [
        row["id"] for row in everything(client, "/admin/keys") if row["name"] == key and not row["revoked"]
    ]
    if len(ids) != 1:
        several = f"several keys are called '{key}': {', '.join(ids)}"
        raise click.ClickException(several if ids else f"no key is called '{key}'")
    return ids[0]


@command.command("update")
@click.argument("key_id", metavar="ID")
@click.option("--name", help="Another name.")
@click.option("--team", help="Another team; what was used before stays the old one's.")
@click.option("--model", "models", multiple=True, help="The models it may use from now on; may be repeated.")
@click.option("--all-models", is_flag=True, help="It may use all models.")
@click.option("--priority", type=click.IntRange(0, 9), help="Under saturation the higher goes first.")
@click.option("--tag", "tags", multiple=True, help="Its tags from now on; may be repeated.")
@click.option("--no-tags", is_flag=True, help="Take its tags away.")
@click.option("--expires-in-days", type=click.IntRange(1), help="Refused afterwards.")
@click.option("--never-expires", is_flag=True, help="It does not expire.")
@bounds
@removals
@as_json
def update(key_id: str, is_json: bool, **options: Any) -> None:
    """Change the key ID; what is not said stays. It holds from its next request on."""
    with as_admin() as client:
        before = answer(client.get(f"/admin/keys/{key_id}"))
        changed = answer(client.post(f"/admin/keys/{key_id}", json=changes_of(options, before)))
    (print_json if is_json else show)(changed)


def changes_of(options: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """The body of POST /admin/keys/{id}. Raises UsageError where nothing was said, or two things at once."""
    body = asked(options, before)
    body |= {name: options[name] for name in ("name", "team", "priority") if options.get(name) is not None}
    for field, flag, nothing in (
        ("models", "all_models", None),
        ("tags", "no_tags", []),
        ("expires_in_days", "never_expires", None),
    ):
        value = options.get(field)
        if value and options.get(flag):
            raise click.UsageError(f"--{flag.replace('_', '-')} and a value exclude one another")
        if value:
            body[field] = list(value) if isinstance(value, tuple) else value
        elif options.get(flag):
            body[field] = nothing
    if not body:
        raise click.UsageError("say what is to change: `quarterdeck keys update --help`")
    return body


@command.command("rotate")
@click.argument("key_id", metavar="ID")
@as_json
def rotate(key_id: str, is_json: bool) -> None:
    """Give the key ID another secret, shown once; the old one is refused at once."""
    with as_admin() as client:
        made = answer(client.post(f"/admin/keys/{key_id}/rotate"))
    _tell_secret(made, is_json)


@command.command("revoke")
@click.argument("key_id", metavar="ID")
@as_json
def revoke(key_id: str, is_json: bool) -> None:
    """Revoke the key ID. It is refused from its next request on."""
    with as_admin() as client:
        done = answer(client.delete(f"/admin/keys/{key_id}"))
    if is_json:
        print_json(done)
    else:
        click.echo(f"{key_id} is revoked")


def _tell_secret(made: dict[str, Any], is_json: bool) -> None:
    if is_json:
        print_json(made)
        return
    click.echo(f"{made['id']} ({made['name']}); shown this once:", err=True)
    click.echo(made["key"])
