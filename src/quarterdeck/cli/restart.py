"""`quarterdeck restart`: the platform on this machine, stopped in order and started again in the background."""

import sys

import click

from quarterdeck.cli import detached, state
from quarterdeck.cli.down import stop
from quarterdeck.settings.environment import Environment


@click.command("restart", short_help="Restart the platform on this machine.")
@click.option("--now", is_flag=True, help="Do not wait for requests in flight.")
def command(now: bool) -> None:
    """Stop the platform as `down` does, and start it in the background with the options of the last `up`.

    It also starts a platform that is not running. Environment variables are those of this shell.
    """
    try:
        folder = Environment.read().state
        options = detached.kept_options(folder)
        stop(folder, now=now)
        sys.exit(detached.start(options, folder))
    except (ValueError, state.StateError) as error:
        raise click.ClickException(str(error)) from None
