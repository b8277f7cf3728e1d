"""An HTTP client that repeats reads while a gateway is shutting down: another one, or the same after a restart, may
answer a moment later. What changes something is sent once, as it may have been carried out."""

import time
from typing import Any

import click
import httpx

ATTEMPTS = 5
WAIT_SECONDS = 1.0
"""As the gateway's Retry-After says."""
SHUTTING_DOWN = "shutting_down"
"""The code of its refusal."""


class PatientClient(httpx.Client):
    """As httpx's; `wait_seconds` lies between two attempts."""

    wait_seconds = WAIT_SECONDS

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        if request.method != "GET":
            return super().send(request, **options)
        for attempt in range(1, ATTEMPTS):
            why = "the gateway is shutting down"
            try:
                response = super().send(request, **options)
                if not is_shutting_down(response):
                    return response
                response.close()
            except (httpx.RemoteProtocolError, httpx.ReadError) as error:
                if not _is_closed(error):
                    raise
                why = "the gateway closed the connection"
            if attempt == 1:
                click.echo(f"{why}; trying again", err=True)
            time.sleep(self.wait_seconds)
        return super().send(request, **options)


def _is_closed(error: httpx.TransportError) -> bool:
    """Whether the connection ended before an answer began. A server that does not speak HTTP does not get better."""
    return isinstance(error, httpx.ReadError) or "disconnected" in str(error)


def is_shutting_down(response: httpx.Response) -> bool:
    if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
        return False
    response.read()
    try:
        error = response.json()["error"]
        return bool(error["code"] == SHUTTING_DOWN)
    except (ValueError, LookupError, TypeError):
        return False
