"""`quarterdeck env`: `eval "$(quarterdeck env)"` points any OpenAI client of that shell at the running platform."""

import shlex

import click

from quarterdeck.cli.client import mine
from quarterdeck.cli.credentials import Credentials


def exports(credentials: Credentials) -> str:
    """Lines for a POSIX shell, quoted so that no value can be anything but a value."""
    values = {"OPENAI_BASE_URL": credentials.base_url, "OPENAI_API_KEY": credentials.api_key}
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in values.items())


@click.command("env", short_help="Print the export lines that point any OpenAI client here.")
def command() -> None:
    """Print `export OPENAI_BASE_URL=… OPENAI_API_KEY=…` of this user's platform.

    Use it so: eval "$(quarterdeck env)"
    """
    click.echo(exports(mine()))
