"""The admin API of whichever gateway answers, with the platform's admin key."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from quarterdeck.operator.http_answers import Answer, fetch

TIMEOUT_SECONDS = 10.0


class GatewayError(Exception):
    """No gateway did it. `status` 0: none could be reached."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    @property
    def is_refusal(self) -> bool:
        """Whether the object itself was refused, so that a repetition is refused as well."""
        return self.status in (400, 413, 422)


class GatewayClient:
    """`gateways` returns the URLs of gateways that may answer now; `key_file` is read for each call, as it may be
    replaced."""

    def __init__(self, client: httpx.AsyncClient, gateways: Callable[[], list[str]], key_file: Path | None) -> None:
        self._client, self._gateways, self._key_file = client, gateways, key_file

    async def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, params: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The answer of the first gateway that is able to give one. Each of these changes may be made twice."""
        if self._key_file is None:
            raise GatewayError(0, "the operator has no admin key: QUARTERDECK_BOOTSTRAP_KEY_FILE is not set")
        try:
            key = (await asyncio.to_thread(self._key_file.read_text, encoding="utf-8")).strip()
        except OSError as error:
            raise GatewayError(0, f"can't read the admin key: {error}") from error
        last = GatewayError(0, "no gateway is ready")
        for url in self._gateways():
            try:
                answer = await fetch(
                    self._client,
                    method,
                    url + path,
                    json=body,
                    params=params,
                    headers={"authorization": f"Bearer {key}"},
                    seconds=TIMEOUT_SECONDS,
                )
            except (httpx.HTTPError, OSError) as error:
                last = GatewayError(0, f"{url} can't be reached: {error or type(error).__name__}")
                continue
            if answer.status < 500:
                return _object_of(answer)
            last = GatewayError(answer.status, _message_of(answer))
        raise last


def _object_of(answer: Answer) -> dict[str, Any]:
    if answer.is_success:
        try:
            found = answer.json()
        except ValueError:
            found = None
        if isinstance(found, dict):
            return found
        raise GatewayError(answer.status, "the gateway's answer is not a JSON object")
    raise GatewayError(answer.status, _message_of(answer))


def _message_of(answer: Answer) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the gateway answered {answer.status}"
