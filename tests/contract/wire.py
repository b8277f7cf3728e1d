"""HTTP without an SDK, for raw requests."""

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The error object; asserts that the envelope has no other members and the right types."""
        found = json.loads(self.body)
        assert set(found) == {"error"}
        error = found["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert isinstance(error["message"], str)
        assert error["message"]
        assert isinstance(error["type"], str)
        assert error["param"] is None or isinstance(error["param"], str)
        assert error["code"] is None or isinstance(error["code"], str)
        return dict(error)


class Wire:
    """One keep-alive connection with a timeout of ten seconds."""

    def __init__(self, port: int, key: str | None) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self._headers = {"authorization": f"Bearer {key}"} if key else {}

    def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        self._connection.request(
            "POST", path, body, {"content-type": "application/json", **self._headers, **(headers or {})}
        )
        response = self._connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()
