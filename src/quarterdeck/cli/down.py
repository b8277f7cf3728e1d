"""`quarterdeck down` and the stop that `restart` needs: the platform of `up` on this machine is stopped in order."""

import os
import signal
import time
from pathlib import Path

import click

from quarterdeck.cli import state
from quarterdeck.settings.environment import Environment

POLL_SECONDS = 0.1


@click.command("down", short_help="Stop the platform on this machine.")
@click.option("--now", is_flag=True, help="Do not wait for requests in flight.")
def command(now: bool) -> None:
    """Stop the platform that `up` started on this machine, as Ctrl-C does. Requests in flight end first.

    Exits with 0 once every process has exited, also where none was running.
    """
    try:
        folder = Environment.read().state
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    if stop(folder, now=now):
        click.echo("stopped")
    else:
        click.echo(f"the platform is not running on {folder}", err=True)


def stop(folder: Path, *, now: bool = False) -> bool:
    """Stop `up` on this state folder and wait for its end. Returns whether it was running. Raises ClickException."""
    pid = state.holder(folder)
    if pid is None:
        return False
    _signal(pid)
    click.echo(f"stopping (pid {pid}); requests in flight end first", err=True)
    is_hurried = now
    while state.holder(folder) == pid:
        try:
            time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:  # as a second Ctrl-C does where `up` runs
            click.echo("stopping now", err=True)
            is_hurried = True
        if is_hurried:  # again and again: two signals at once may arrive as one
            _signal(pid)
    return True


def _signal(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return  # it has just ended
    except PermissionError:
        raise click.ClickException(f"the platform runs as another user (pid {pid})") from None
