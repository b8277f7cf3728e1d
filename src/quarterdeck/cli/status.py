"""`quarterdeck status`: what of the platform runs here."""

import asyncio
import contextlib
import sys

import click

from quarterdeck.cli import credentials, health, state
from quarterdeck.cli.table import columns
from quarterdeck.settings.environment import Environment


@click.command("status", short_help="Say what of the platform runs here.")
def command() -> None:
    """Say whether `up` runs, and which of its parts answer. Exit status 3 where the gateway does not."""
    try:
        environment = Environment.read()
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    is_up = state.is_locked(environment.state)
    urls = {
        "gateway": f"{_gateway_url(environment, is_up=is_up)}/readyz",
        "worker": f"http://{environment.host}:{environment.worker_port}/healthz",
        "engine": environment.engine_url or f"http://127.0.0.1:{environment.engine_port}/healthz",
    }
    answers = asyncio.run(_ask(urls))
    running = "runs" if is_up else "does not run"
    click.echo(f"`quarterdeck up` {running} on {environment.state}")
    click.echo(columns(("PART", "STATE", "ASKED"), [(n, _word(answers[n].status), url) for n, url in urls.items()]))
    sys.exit(0 if answers["gateway"].status else 3)


def _gateway_url(environment: Environment, *, is_up: bool) -> str:
    """Where `up` says that it is: its `--port` is not in the environment of other shells."""
    if is_up:
        with contextlib.suppress(credentials.CredentialsError):  # before its first start has written them
            return credentials.read(environment.state).gateway_url
    return f"http://{environment.host}:{environment.port}"


async def _ask(urls: dict[str, str]) -> dict[str, health.Answer]:
    answers = await asyncio.gather(*(health.ask(url) for url in urls.values()))
    return dict(zip(urls, answers, strict=True))


def _word(status: int) -> str:
    if status == 0:
        return "no answer"
    return "up" if status < 500 else f"not ready ({status})"
