"""Scores at a Langfuse server: `POST /api/public/scores`, which replaces a score of the same id.

Blocking, on the standard library: scores are few, and the worker calls it in a thread.
"""

import base64
import http.client
import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote, urlsplit

from quarterdeck.telemetry.logging import redact

_LATER = (401, 403, 408, 425, 429)
"""Statuses that may pass: a key to be renewed, a limit. Those of 500 and more as well."""


class ScoreSinkError(Exception):
    """The server is away, or refuses for now; a repetition may succeed."""


class ScoreRefusedError(Exception):
    """The server does not take this score, now or later."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST becomes a GET, whose 200 means nothing; and the keys would go to another host."""

    def redirect_request(self, *_: object) -> None:
        return None


class LangfuseScores:
    """`url` is the server's base URL. Proxies are those of the process' environment."""

    def __init__(self, url: str, public_key: str, secret_key: str, *, timeout: float = 10.0) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ValueError("the URL of Langfuse must begin with http:// or https://")
        self._url = url.rstrip("/") + "/api/public/scores"
        self._authorization = "Basic " + base64.b64encode(f"{public_key}:{secret_key}".encode()).decode()
        self._timeout = timeout
        self._opener = urllib.request.build_opener(_NoRedirects)

    def put(self, score: dict[str, Any]) -> None:
        """Create or replace a score. Raises ScoreSinkError and ScoreRefusedError."""
        self._call("POST", self._url, json.dumps(score).encode())

    def delete(self, id: str) -> None:
        """Delete a score; one that does not exist is deleted. Raises as `put`."""
        self._call("DELETE", f"{self._url}/{quote(id, safe='')}", None, missing_is_fine=True)

    def _call(self, method: str, url: str, body: bytes | None, *, missing_is_fine: bool = False) -> None:
        headers = {
            "authorization": self._authorization,
            "content-type": "application/json",
            "user-agent": "quarterdeck",
        }
        request = urllib.request.Request(url, body, headers, method=method)  # noqa: S310  # the scheme was checked
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                response.read(64 * 1024)
        except urllib.error.HTTPError as error:
            with error:
                text = f"HTTP {error.code} {redact(error.read(200).decode('utf-8', 'replace'))}".strip()
            if error.code == 404 and missing_is_fine:
                return
            if 300 <= error.code < 400:
                where = redact(str(error.headers.get("location") or ""))[:200]
                raise ScoreSinkError(f"HTTP {error.code}: the server is at another URL: {where}") from None
            if error.code in _LATER or error.code >= 500:
                raise ScoreSinkError(text) from None
            raise ScoreRefusedError(text) from None
        except (OSError, http.client.HTTPException) as error:
            raise ScoreSinkError(f"{type(error).__name__}: {error}") from error
