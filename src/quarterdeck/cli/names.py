"""Names and ids of keys: a command takes either, of the admin's own organisation or of another."""

import re
from collections.abc import Callable
from typing import Any

import click
import httpx

from quarterdeck.cli.client import list_all
from quarterdeck.cli.suggestions import completer

_KEY_ID = re.compile(r"key_[0-9A-Za-z_.:-]+")


def of_org(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--org`."""
    option = click.option(
        "--org", help="Organisation, for admins of the platform. Default: your own.", shell_complete=completer("orgs")
    )
    return option(command)


def in_org(org: str | None) -> dict[str, str]:
    """The query of a request about an organisation."""
    return {} if org is None else {"org": org}


key_argument = click.argument("key", metavar="NAME|ID", shell_complete=completer("keys"))
team_argument = click.argument("team", shell_complete=completer("teams"))
org_argument = click.argument("org", shell_complete=completer("orgs"))


def key_option(help_text: str) -> Callable[..., Any]:
    return click.option("--key", metavar="NAME|ID", help=help_text, shell_complete=completer("keys"))


def model_option(*names: str, help_text: str, multiple: bool = False) -> Callable[..., Any]:
    return click.option(*names, help=help_text, multiple=multiple, shell_complete=completer("models"))


def team_option(help_text: str) -> Callable[..., Any]:
    return click.option("--team", help=help_text, shell_complete=completer("teams"))


def key_id(key: str, client: httpx.Client, org: str | None = None, *, with_revoked: bool = False) -> str:
    """Return an id unchanged; look a name up among the keys that are not revoked. Raises ClickException.

    `with_revoked`: where there is no other, a revoked key of this name is meant, for its past usage.
    """
    if _KEY_ID.fullmatch(key):
        return key
    found = [row for row in list_all(client, "/admin/keys", org=org) if row["name"] == key]
    ids: list[str] = [row["id"] for row in found if not row["revoked"]]
    if with_revoked and not ids:
        ids = [row["id"] for row in found]
    if len(ids) > 1:
        raise click.ClickException(f"several keys are named '{key}': {', '.join(ids)}")
    if not ids:
        revoked = f" that is not revoked (revoked: {', '.join(row['id'] for row in found)})" if found else ""
        raise click.ClickException(f"no key is named '{key}'{revoked}")
    return ids[0]
