"""`quarterdeck env`: `eval "$(quarterdeck env)"` configures OpenAI clients in a shell for the running platform."""

import shlex

import click

from quarterdeck.cli import target
from quarterdeck.cli.client import user_credentials
from quarterdeck.cli.credentials import Credentials


def exports(credentials: Credentials) -> str:
    """Export lines for a POSIX shell, safely quoted."""
    values = {"OPENAI_BASE_URL": credentials.base_url, "OPENAI_API_KEY": credentials.api_key}
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in values.items())


@click.command("env", short_help="Print shell exports that configure OpenAI clients.")
def command() -> None:
    """Print `export OPENAI_BASE_URL=… OPENAI_API_KEY=…` for this user's platform.

    Usage: eval "$(quarterdeck env)"
    """
    if target.current().is_cluster:
        raise click.UsageError("a forwarded port ends with this command: use --url with the gateway's address")
    click.echo(exports(user_credentials()))
