"""`quarterdeck status`: the state of the platform on this machine."""

import asyncio
import contextlib
import sys

import click

from quarterdeck.cli import credentials, health, state
from quarterdeck.cli.output import columns
from quarterdeck.settings.environment import Environment


@click.command("status", short_help="Show the state of the platform on this machine.")
def command() -> None:
    """Show whether `up` is running and which parts respond. Exits with status 3 if the gateway does not respond."""
    try:
        environment = Environment.read()
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    for text in environment.ignored:
        click.echo(text, err=True)
    is_up = state.is_locked(environment.state)
    urls = {
        "gateway": f"{_gateway_url(environment, is_up=is_up)}/readyz",
        "worker": f"http://{environment.host}:{environment.worker_port}/healthz",
        "engine": environment.engine_url or f"http://127.0.0.1:{environment.engine_port}/healthz",
    }
    responses = asyncio.run(_check(urls))
    running = "is running" if is_up else "is not running"
    click.echo(f"`quarterdeck up` {running} on {environment.state}")
    click.echo(
        columns(("PART", "STATE", "URL"), [(n, _state_text(responses[n].status), url) for n, url in urls.items()])
    )
    sys.exit(0 if responses["gateway"].status else 3)


def _gateway_url(environment: Environment, *, is_up: bool) -> str:
    """The URL written by `up`: other shells do not know its `--port`."""
    if is_up:
        with contextlib.suppress(credentials.CredentialsError):  # not yet written by the first start
            return credentials.read(environment.state).gateway_url
    return f"http://{environment.host}:{environment.port}"


async def _check(urls: dict[str, str]) -> dict[str, health.HealthResponse]:
    responses = await asyncio.gather(*(health.get(url) for url in urls.values()))
    return dict(zip(urls, responses, strict=True))


def _state_text(status: int) -> str:
    if status == 0:
        return "no response"
    return "up" if status < 500 else f"not ready ({status})"
