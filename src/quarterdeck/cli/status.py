"""`quarterdeck status`: the state of the platform on this machine."""

import asyncio
import contextlib
import sys

import click

from quarterdeck.cli import credentials, health, readiness, state
from quarterdeck.cli.output import columns
from quarterdeck.settings.environment import Environment

NOT_READY, NO_RESPONSE = 1, 3
"""Exit statuses."""


@click.command("status", short_help="Show the state of the platform on this machine.")
def command() -> None:
    """Show whether `up` is running, the state of each part, and what is not ready.

    Exits with status 0 if the gateway serves (ready or degraded), 1 if it responds but does not serve, and 3 if it does
    not respond.
    """
    try:
        environment = Environment.read()
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    for text in environment.ignored:
        click.echo(text, err=True)
    is_up = state.is_locked(environment.state)
    urls = {
        "gateway": f"{_gateway_url(environment, is_up=is_up)}/readyz",
        "worker": f"{environment.url_of(environment.worker_port)}/readyz",
        "engine": f"{environment.engine_url or f'http://127.0.0.1:{environment.engine_port}'}/endpoints",
    }
    found = asyncio.run(_check(urls))
    states = {
        "gateway": readiness.gateway_state(found["gateway"]),
        "worker": readiness.worker_state(found["worker"]),
        "engine": readiness.engine_state(found["engine"]),
    }
    running = "is running" if is_up else "is not running"
    click.echo(f"`quarterdeck up` {running} on {environment.state}")
    click.echo(columns(("PART", "STATE", "URL"), [(name, states[name], url) for name, url in urls.items()]))
    problems = {
        "gateway": readiness.gateway_problems(found["gateway"]),
        "worker": readiness.worker_problems(found["worker"]),
    }
    for part, named in problems.items():
        for name, text in named.items():
            click.echo(f"{part}: {name}: {text}")
    sys.exit({0: NO_RESPONSE, 200: 0}.get(found["gateway"].status, NOT_READY))


def _gateway_url(environment: Environment, *, is_up: bool) -> str:
    """The URL written by `up`: other shells do not know its `--port`."""
    if is_up:
        with contextlib.suppress(credentials.CredentialsError):  # not yet written by the first start
            return credentials.read(environment.state).gateway_url
    return environment.url_of(environment.port)


async def _check(urls: dict[str, str]) -> dict[str, health.HealthResponse]:
    responses = await asyncio.gather(*(health.get(url) for url in urls.values()))
    return dict(zip(urls, responses, strict=True))
