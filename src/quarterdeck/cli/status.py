"""`quarterdeck status`: the state of the platform on this machine."""

import asyncio
import contextlib
import sys

import click
import httpx

from quarterdeck.cli import cluster_status, credentials, health, installation, readiness, state, target
from quarterdeck.cli.client import body_of, gateway_client
from quarterdeck.cli.output import print_table
from quarterdeck.settings.environment import Environment

NOT_READY, NO_RESPONSE = 1, 3
"""Exit statuses."""


@click.command("status", short_help="Show the state of the platform.")
def command() -> None:
    """Show whether `up` is running, the state of each part, and what is not ready. With `--context`, `--namespace` or
    `--release` before the command: the parts and Models of a release.

    Exits with status 0 if the gateway serves (ready or degraded), 1 if it responds but does not serve, and 3 if it does
    not respond.
    """
    if not target.current().is_local:
        sys.exit(_remote_status())
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
    print_table(("PART", "STATE", "URL"), [(name, states[name], url) for name, url in urls.items()])
    problems = {
        "gateway": readiness.gateway_problems(found["gateway"]),
        "worker": readiness.worker_problems(found["worker"]),
    }
    for part, named in problems.items():
        for name, text in named.items():
            click.echo(f"{part}: {name}: {text}")
    sys.exit({0: NO_RESPONSE, 200: 0}.get(found["gateway"].status, NOT_READY))


def _remote_status() -> int:
    """Print the state of a release in a cluster, or of the gateway at --url. Returns the exit status."""
    chosen = target.current()
    if chosen.is_cluster:
        found = installation.find(chosen.kubectl, chosen.release)
        parts, models = cluster_status.read(chosen.kubectl, found)
        click.echo(f"release {found.release} in namespace {found.namespace}")
        print_table(("PART", "STATE", "DETAIL"), [(part.name, part.state, part.detail) for part in parts])
        if models:
            head = ("MODEL", "READY", "REASON", "REPLICAS", "MESSAGE")
            rows = [(one.name, str(one.is_ready), one.reason, one.replicas, one.message) for one in models]
            click.echo()
            print_table(head, rows)
    user = target.resolve(needs_key=False)
    with gateway_client(user.gateway_url, user.api_key) as client:
        try:
            response = client.get("/readyz")
        except httpx.ConnectError:
            return NO_RESPONSE
    answer = health.HealthResponse(response.status_code, body_of(response))
    click.echo(f"gateway: {readiness.gateway_state(answer)}")
    for name, text in readiness.gateway_problems(answer).items():
        click.echo(f"gateway: {name}: {text}")
    return 0 if answer.status == 200 else NOT_READY


def _gateway_url(environment: Environment, *, is_up: bool) -> str:
    """The URL written by `up`: other shells do not know its `--port`."""
    if is_up:
        with contextlib.suppress(credentials.CredentialsError):  # not yet written by the first start
            return credentials.read(environment.state).gateway_url
    return environment.gateway_url


async def _check(urls: dict[str, str]) -> dict[str, health.HealthResponse]:
    responses = await asyncio.gather(*(health.get(url) for url in urls.values()))
    return dict(zip(urls, responses, strict=True))
