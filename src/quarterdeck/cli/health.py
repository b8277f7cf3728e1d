"""Small questions to processes of this machine: does it serve, what does it say.

With http.client and not httpx: `up` asks once a second for as long as the platform runs, needs no pool, no TLS and no
proxy, and stays small.
"""

import asyncio
import http.client
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and JSON body; 0: nobody answered."""

    status: int
    body: Any = None


async def ask(url: str) -> Answer:
    """GET, bounded in time and size. Never raises for a peer's fault."""
    return await asyncio.to_thread(_get, url)


def _get(url: str) -> Answer:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", parts.path or "/", headers={"Connection": "close"})
        response = connection.getresponse()
        text = response.read(2**20)
    except (OSError, http.client.HTTPException):
        return Answer(0)
    finally:
        connection.close()
    try:
        return Answer(response.status, json.loads(text))
    except ValueError:
        return Answer(response.status)


async def serves(url: str) -> bool:
    """Whether it answers, and not with a 5xx."""
    return 0 < (await ask(url)).status < 500


async def redis_serves(socket: Path) -> bool:
    """Whether Redis says PONG: while it reads its file it says LOADING."""
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
