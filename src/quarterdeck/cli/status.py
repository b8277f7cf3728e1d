"""`quarterdeck status`: the state of the platform, on this machine or elsewhere."""

import asyncio
import contextlib
import sys
from dataclasses import asdict
from typing import Any

import click
import httpx

from quarterdeck.cli import cluster_status, credentials, health, installation, readiness, state, target
from quarterdeck.cli.client import body_of, gateway_client
from quarterdeck.cli.output import as_json, print_json, print_table, printable, say, state_color
from quarterdeck.settings.environment import Environment

NOT_READY, NO_RESPONSE = 1, 3
"""Exit statuses."""


@click.command("status", short_help="Show the state of the platform.")
@as_json
def command(is_json: bool) -> None:
    """Show whether `up` is running, the state of each part, and what is not ready. Elsewhere: the state of the gateway;
    with `--context`, `--namespace` or `--release`: the parts and Models of a release.

    Exits with status 0 if the gateway serves (ready or degraded), 1 if it responds but does not serve, and 3 if it does
    not respond.
    """
    sys.exit(_local_status(is_json) if target.current().is_local else _remote_status(is_json))


def _local_status(is_json: bool) -> int:
    """Print the state of the platform on this machine. Returns the exit status."""
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
    problems = {
        "gateway": readiness.gateway_problems(found["gateway"]),
        "worker": readiness.worker_problems(found["worker"]),
    }
    if is_json:
        parts = [{"part": name, "state": states[name], "url": url} for name, url in urls.items()]
        print_json({"running": is_up, "state_folder": str(environment.state), "parts": parts, "problems": problems})
        return _exit_status(found["gateway"].status)
    say(f"`quarterdeck up` {'is running' if is_up else 'is not running'} on {environment.state}")
    engine = " (simulated)" if readiness.is_simulated(found["engine"]) else ""
    notes = {"engine": engine}
    print_table(
        ("PART", "STATE", "URL"), [(name, states[name] + notes.get(name, ""), url) for name, url in urls.items()]
    )
    _show_problems(problems)
    return _exit_status(found["gateway"].status)


def _remote_status(is_json: bool) -> int:
    """Print the state of a release in a cluster, or of a gateway elsewhere. Returns the exit status."""
    chosen = target.current()
    shown: dict[str, Any] = {}
    if chosen.is_cluster:
        shown |= _release_status(chosen, is_json=is_json)
    user = target.resolve(needs_key=False)
    with gateway_client(user.gateway_url, user.api_key) as client:
        try:
            response = client.get("/readyz")
        except httpx.ConnectError:
            click.echo(f"gateway: no response at {user.gateway_url}{chosen.from_where}", err=True)
            return NO_RESPONSE
    answer = health.HealthResponse(response.status_code, body_of(response))
    problems = readiness.gateway_problems(answer)
    if is_json:
        print_json({**shown, "gateway": readiness.gateway_state(answer), "url": user.gateway_url, "problems": problems})
        return _exit_status(answer.status)
    word = printable(readiness.gateway_state(answer))
    click.echo(f"gateway: {click.style(word, fg=state_color(word))}  {user.gateway_url}{chosen.from_where}")
    _show_problems({"gateway": problems})
    return _exit_status(answer.status)


def _release_status(chosen: target.Target, *, is_json: bool) -> dict[str, Any]:
    """Print the parts and Models of a release, or return them for JSON."""
    found = installation.find(chosen.kubectl, chosen.release)
    parts, models = cluster_status.read(chosen.kubectl, found)
    if is_json:
        listed = {"parts": [asdict(part) for part in parts], "models": [asdict(model) for model in models]}
        return {"release": found.release, "namespace": found.namespace, **listed}
    click.echo(f"release {found.release} in namespace {found.namespace}")
    print_table(("PART", "STATE", "DETAIL"), [(part.name, part.state, part.detail) for part in parts])
    if models:
        head = ("MODEL", "READY", "REASON", "REPLICAS", "MESSAGE")
        rows = [(one.name, str(one.is_ready), one.reason, one.replicas, one.message) for one in models]
        click.echo()
        print_table(head, rows, ("REPLICAS", "REASON"))
    return {}


def _show_problems(problems: dict[str, dict[str, str]]) -> None:
    for part, named in problems.items():
        for name, text in named.items():
            say(f"{part}: {name}: {text}")


def _exit_status(status: int) -> int:
    return {0: NO_RESPONSE, 200: 0}.get(status, NOT_READY)


def _gateway_url(environment: Environment, *, is_up: bool) -> str:
    """The URL written by `up`: other shells do not know its `--port`."""
    if is_up:
        with contextlib.suppress(credentials.CredentialsError):  # not yet written by the first start
            return credentials.read(environment.state).gateway_url
    return environment.gateway_url


async def _check(urls: dict[str, str]) -> dict[str, health.HealthResponse]:
    responses = await asyncio.gather(*(health.get(url) for url in urls.values()))
    return dict(zip(urls, responses, strict=True))
