"""HTTP access to the running platform for short-lived commands. Failures become one-line ClickExceptions."""

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import quote

import click
import httpx

from quarterdeck.cli import target
from quarterdeck.cli.credentials import Credentials, CredentialsError, certificate_context
from quarterdeck.cli.output import printable
from quarterdeck.cli.patient_client import PatientClient, is_shutting_down
from quarterdeck.settings.environment import Environment


def user_credentials() -> Credentials:
    """Address and keys of the platform that the command line names. Raises ClickException."""
    return target.resolve()


@contextmanager
def gateway_client(base_url: str, key: str) -> Iterator[httpx.Client]:
    """A client for one command. Connection errors become ClickExceptions.

    A transport passed as click's `obj` replaces the network, in tests.
    """
    context = click.get_current_context(silent=True)
    is_remote = target.current().url is not None
    with PatientClient(
        base_url=base_url,
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx.Timeout(10.0, read=180.0),
        trust_env=is_remote,  # on this machine, or at a forwarded port: never through a proxy
        transport=context.find_object(httpx.BaseTransport) if context else None,
        verify=_verification(base_url),
    ) as client:
        try:
            yield client
        except httpx.ConnectError:
            chosen = target.current()
            hint = _why_away() if chosen.is_local else chosen.from_where
            raise click.ClickException(f"cannot connect to {base_url}{hint}") from None
        except httpx.HTTPError as error:
            raise click.ClickException(f"{base_url}: {error or type(error).__name__}") from None
        except UnicodeEncodeError:  # an argument that the terminal's encoding could not decode
            raise click.ClickException(
                "an argument is no UTF-8 text: use a UTF-8 locale, such as LC_ALL=C.UTF-8"
            ) from None


def _why_away() -> str:
    """Why this machine's gateway does not answer."""
    from quarterdeck.cli import state

    if state.is_locked(Environment.read().state):
        return ": the platform is starting or stopping (`quarterdeck status`)"
    return ": is `quarterdeck up` running?"


def _verification(base_url: str) -> ssl.SSLContext | bool:
    """How the gateway's certificate is verified: that of this machine's gateway is known, others by authorities."""
    if not base_url.startswith("https:") or not target.current().is_local:
        return True
    try:
        return certificate_context(Environment.read().state)
    except (CredentialsError, ValueError) as error:
        raise click.ClickException(str(error)) from None


@contextmanager
def admin_client() -> Iterator[httpx.Client]:
    """A client with this user's admin key."""
    user = user_credentials()
    with gateway_client(user.gateway_url, user.admin_key) as client:
        yield client


def url_of(collection: str, name: str) -> str:
    """The path of an object. Raises ClickException for what can't be a name or an id: it would be another path."""
    if not name or name in (".", "..") or "/" in name or not name.isprintable():
        raise click.ClickException(f"'{printable(name)}' is not a name or an id")
    return f"{collection}/{quote(name, safe='')}"


def list_all(client: httpx.Client, path: str, **params: str | None) -> Iterator[dict[str, Any]]:
    """Yield the objects of a paginated list."""
    given = {name: value for name, value in params.items() if value is not None}
    while True:
        page = json_object(client.get(path, params={"limit": "100", **given}))
        yield from page["data"]
        if not page.get("has_more") or not page["data"]:
            return
        given["after"] = page["data"][-1]["id"]


class Object(dict[str, Any]):
    """An object of a gateway. A member that it lacks is a ClickException: an older gateway does not have it."""

    def __init__(self, members: dict[str, Any], url: str) -> None:
        super().__init__(members)
        self.url = url

    def __missing__(self, name: str) -> Any:
        raise click.ClickException(f"the gateway at {self.url} is older than this CLI: its answer has no '{name}'")


def body_of(response: httpx.Response) -> Any:
    """The JSON of a response, its objects as `Object`, or None."""
    try:
        return response.json(object_hook=partial(Object, url=_origin(response)))
    except ValueError:
        return None


def _origin(response: httpx.Response) -> str:
    return str(response.url.copy_with(path="/", query=None, fragment=None)).rstrip("/")


def json_object(response: httpx.Response) -> dict[str, Any]:
    """Return the JSON object of a successful response. Raises ClickException with the platform's error message."""
    response.read()
    body = body_of(response)
    if response.is_error:
        if older := _older(response, body):
            raise click.ClickException(older)
        if is_shutting_down(response):
            again = "send it again when it, or another one, serves"
            raise click.ClickException(f"the gateway at {_origin(response)} is shutting down: {again} (status 503)")
        message = printable(error_message(body) or response.reason_phrase, keep="\n")
        raise click.ClickException(f"{message} (status {response.status_code})")
    if not isinstance(body, dict):
        raise click.ClickException(f"{response.url} did not return a JSON object")
    return body


def _older(response: httpx.Response, body: Any) -> str | None:
    """What to say where the server does not know the route or its method. None: it does."""
    where, path = _origin(response), response.url.path
    error = body.get("error") if isinstance(body, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    if code in ("unknown_url", "method_not_allowed"):
        method = response.request.method
        return f"the gateway at {where} is older than this CLI: it does not know {method} {path}"
    if response.status_code in (404, 405) and error is None:
        return f"{where} is not a Quarterdeck gateway: it does not know {path} (status {response.status_code})"
    return None


def readiness(client: httpx.Client) -> dict[str, dict[str, str]]:
    """Each model's `state`, `detail` and `task` from the gateway's `/readyz`, which needs no key."""
    try:
        body = client.get("/readyz").json()
    except json.JSONDecodeError:
        return {}
    models = body.get("models") if isinstance(body, dict) else None
    return models if isinstance(models, dict) else {}


def error_message(body: Any) -> str | None:
    """Return the message of an OpenAI error object."""
    error = body.get("error") if isinstance(body, dict) else None
    return str(error["message"]) if isinstance(error, dict) and "message" in error else None
