"""The running platform as the short-lived commands see it: HTTP with the user's credentials, failures in one line."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
import httpx

from quarterdeck.cli import credentials
from quarterdeck.cli.credentials import Credentials
from quarterdeck.settings.environment import Environment


def mine() -> Credentials:
    """This user's credentials. Raises ClickException where there are none."""
    try:
        return credentials.read(Environment.read().state)
    except (credentials.CredentialsError, ValueError) as error:
        raise click.ClickException(str(error)) from None


@contextmanager
def connected(base_url: str, key: str) -> Iterator[httpx.Client]:
    """A client for one command. What goes wrong with the connection is said in one line."""
    timeout = httpx.Timeout(10.0, read=180.0)
    # trust_env off: the platform is on this machine, a proxy for the outside is not asked.
    with httpx.Client(
        base_url=base_url, headers={"Authorization": f"Bearer {key}"}, timeout=timeout, trust_env=False
    ) as client:
        try:
            yield client
        except httpx.ConnectError:
            raise click.ClickException(f"nobody answers at {base_url}: is `quarterdeck up` running?") from None
        except httpx.HTTPError as error:
            raise click.ClickException(f"{base_url}: {error or type(error).__name__}") from None


@contextmanager
def as_admin() -> Iterator[httpx.Client]:
    """A client for one command, with this user's admin key."""
    user = mine()
    with connected(user.gateway_url, user.admin_key) as client:
        yield client


def everything(client: httpx.Client, path: str, **params: str | None) -> Iterator[dict[str, Any]]:
    """The objects of a list, page by page."""
    given = {name: value for name, value in params.items() if value is not None}
    while True:
        page = answer(client.get(path, params={"limit": "100", **given}))
        yield from page["data"]
        if not page.get("has_more") or not page["data"]:
            return
        given["after"] = page["data"][-1]["id"]


def answer(response: httpx.Response) -> dict[str, Any]:
    """The JSON object of a good answer. Raises ClickException with the platform's own words for another."""
    response.read()
    try:
        body = response.json()
    except json.JSONDecodeError:
        body = None
    if response.is_error:
        raise click.ClickException(f"{said(body) or response.reason_phrase} (status {response.status_code})")
    if not isinstance(body, dict):
        raise click.ClickException(f"{response.url} did not answer with a JSON object")
    return body


def readiness(client: httpx.Client) -> dict[str, dict[str, str]]:
    """Each model's `state`, `detail` and `task`, as the gateway's `/readyz` tells them (to anybody, without a key)."""
    try:
        body = client.get("/readyz").json()
    except json.JSONDecodeError:
        return {}
    models = body.get("models") if isinstance(body, dict) else None
    return models if isinstance(models, dict) else {}


def said(body: Any) -> str | None:
    """The message of OpenAI's error object."""
    error = body.get("error") if isinstance(body, dict) else None
    return str(error["message"]) if isinstance(error, dict) and "message" in error else None
