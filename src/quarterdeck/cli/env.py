"""`quarterdeck env`: `eval "$(quarterdeck env)"` configures OpenAI clients in a shell for the running platform."""

import shlex

import click

from quarterdeck.cli import target
from quarterdeck.cli.client import user_credentials
from quarterdeck.cli.credentials import Credentials
from quarterdeck.cli.output import as_json, print_json


def values_of(credentials: Credentials) -> dict[str, str]:
    """OpenAI's variables."""
    return {"OPENAI_BASE_URL": credentials.base_url, "OPENAI_API_KEY": credentials.api_key}


def exports(credentials: Credentials) -> str:
    """Export lines for a POSIX shell, safely quoted."""
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in values_of(credentials).items())


@click.command("env", short_help="Print shell exports that configure OpenAI clients.")
@as_json
def command(is_json: bool) -> None:
    """Print `export OPENAI_BASE_URL=… OPENAI_API_KEY=…` for this user's platform.

    Usage: eval "$(quarterdeck env)"
    """
    if target.current().is_cluster:
        raise click.UsageError("a forwarded port ends with this command: use --url with the gateway's address")
    user = user_credentials()
    if is_json:
        print_json(values_of(user))
    else:
        click.echo(exports(user))
