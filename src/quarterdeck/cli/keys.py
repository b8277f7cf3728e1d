"""`quarterdeck keys`: API keys, made and revoked through the gateway's admin API with this user's admin key."""

from datetime import datetime
from typing import Any

import click

from quarterdeck.cli.client import answer, connected, mine
from quarterdeck.cli.table import columns

_LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests", "max_tokens")


@click.group("keys", short_help="Create, list and revoke API keys.")
def command() -> None:
    """Create, list and revoke API keys of the running platform."""


@command.command("create")
@click.argument("name")
@click.option("--team", help="Whose usage it counts as. Otherwise the default team.")
@click.option("--model", "models", multiple=True, help="A model it may use; may be repeated. None: all.")
@click.option("--expires-in-days", type=click.IntRange(1), help="Refused afterwards. None: never.")
@click.option("--admin", is_flag=True, help="It may manage keys.")
@click.option("--requests-per-minute", type=click.IntRange(1))
@click.option("--tokens-per-minute", type=click.IntRange(1))
@click.option("--concurrent-requests", type=click.IntRange(1))
@click.option("--max-tokens", type=click.IntRange(1), help="The largest max_tokens of one request.")
def create(name: str, **options: Any) -> None:
    """Make a key called NAME. It is shown once, alone on stdout: the server keeps its digest only."""
    user = mine()
    with connected(user.gateway_url, user.admin_key) as client:
        made = answer(client.post("/admin/keys", json=request_of(name, options)))
    click.echo(f"{made['id']} ({made['name']}); shown this once:", err=True)
    click.echo(made["key"])


def request_of(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The body of POST /admin/keys: what was not said is not sent."""
    limits = {limit: options[limit] for limit in _LIMITS if options.get(limit)}
    body = {
        "name": name,
        "team": options.get("team"),
        "models": list(options.get("models") or ()),
        "expires_in_days": options.get("expires_in_days"),
        "admin": options.get("admin"),
        "limits": limits,
    }
    return {field: value for field, value in body.items() if value}


@command.command("list")
def list_keys() -> None:
    """List the keys, newest first. None shows its secret: the server does not have it."""
    user = mine()
    rows: list[tuple[str, ...]] = []
    after: str | None = None
    with connected(user.gateway_url, user.admin_key) as client:
        while True:
            page = answer(client.get("/admin/keys", params={"limit": 100, **({"after": after} if after else {})}))
            rows += [row_of(key) for key in page["data"]]
            if not page.get("has_more") or not page["data"]:
                break
            after = page["data"][-1]["id"]
    click.echo(columns(("ID", "NAME", "TEAM", "KEY", "CREATED", "STATE"), rows))


def row_of(key: dict[str, Any]) -> tuple[str, ...]:
    """A key as the admin API tells it, in columns."""
    state = "revoked" if key["revoked"] else f"until {_day(key['expires'])}" if key["expires"] else "valid"
    admin = ", admin" if key["admin"] else ""
    return (key["id"], key["name"], key["team"], f"…{key['hint']}", _day(key["created"]), state + admin)


def _day(unix: float) -> str:
    return datetime.fromtimestamp(unix).astimezone().strftime("%Y-%m-%d %H:%M")


@command.command("revoke")
@click.argument("key_id", metavar="ID")
def revoke(key_id: str) -> None:
    """Revoke the key ID. It is refused from its next request on."""
    user = mine()
    with connected(user.gateway_url, user.admin_key) as client:
        answer(client.delete(f"/admin/keys/{key_id}"))
    click.echo(f"{key_id} is revoked")
