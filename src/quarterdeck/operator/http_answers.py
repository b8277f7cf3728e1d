"""Answers of engines, engine doors and gateways, bounded in size, time and depth.

httpx bounds each read of a body, not the body: an engine's image, which a Model names, could fill the operator's memory
or send a byte a second for ever.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from quarterdeck.kube import nesting

MAX_BYTES = 4 * 1024 * 1024
"""Of one answer. A list of a thousand adapters, or of a thousand models' demand, has a tenth of it."""


class AnswerTooLargeError(httpx.HTTPError):
    """The answer has more than MAX_BYTES."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    body: bytes

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body parsed. Raises ValueError."""
        return nesting.loads(self.body)


async def fetch(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    seconds: float,
    json: Mapping[str, Any] | None = None,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send a request and read the whole answer, in `seconds` altogether. Raises httpx.HTTPError, also for a URL that is
    none."""
    try:
        # Compressed, a small body may stand for a large one.
        request = client.build_request(
            method, url, json=json, params=params, headers={"accept-encoding": "identity", **(headers or {})}
        )
        async with asyncio.timeout(seconds):
            response = await client.send(request, stream=True)
            try:
                return Answer(response.status_code, await _body(response))
            finally:
                await response.aclose()
    except TimeoutError:
        raise httpx.ReadTimeout(f"no whole answer within {seconds:g} s") from None
    except (httpx.InvalidURL, httpx.StreamError) as error:
        raise httpx.HTTPError(str(error)) from error


async def _body(response: httpx.Response) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise httpx.DecodingError("the answer is compressed, which was not asked for")
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_BYTES:
            raise AnswerTooLargeError(f"the answer has more than {MAX_BYTES} bytes")
    return bytes(body)
