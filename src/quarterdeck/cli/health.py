"""Health checks of processes on this machine.

Uses http.client instead of httpx: `up` polls once a second for as long as the platform runs, needs no pool, TLS or
proxy, and should stay small.
"""

import asyncio
import http.client
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class HealthResponse:
    """Status and JSON body. Status 0: no response."""

    status: int
    body: Any = None


async def get(url: str) -> HealthResponse:
    """GET, bounded in time and size. Peer failures do not raise."""
    return await asyncio.to_thread(_get, url)


def _get(url: str) -> HealthResponse:
    parts = urlsplit(url)
    connection = _connect(parts.scheme, parts.hostname or "", parts.port)
    try:
        connection.request("GET", parts.path or "/", headers={"Connection": "close"})
        response = connection.getresponse()
        text = response.read(2**20)
    except (OSError, http.client.HTTPException):
        return HealthResponse(0)
    finally:
        connection.close()
    try:
        return HealthResponse(response.status, json.loads(text))
    except ValueError:
        return HealthResponse(response.status)


def _connect(scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
    if scheme != "https":
        return http.client.HTTPConnection(host, port or 80, timeout=_TIMEOUT_S)
    # Not verified: the certificate has a public name, and no secret is sent.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return http.client.HTTPSConnection(host, port or 443, timeout=_TIMEOUT_S, context=context)


async def is_serving(url: str) -> bool:
    """Whether the URL answers with a status below 500."""
    return 0 < (await get(url)).status < 500


async def is_redis_ready(socket: Path) -> bool:
    """Whether Redis answers PONG; while it loads its file it answers LOADING."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                writer.write(b"PING\r\n")
                return (await reader.readline()).startswith(b"+PONG")
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
