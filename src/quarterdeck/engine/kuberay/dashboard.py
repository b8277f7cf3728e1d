"""Ray's dashboard: the state of Serve, without joining the cluster.

A driver would need Ray's sockets and 200 MB; the dashboard gives the same details as JSON.
"""

from typing import Any

import httpx

from quarterdeck.errors import EngineUnavailableError

DETAILS_PATH = "/api/serve/applications/"


class Dashboard:
    """`url`: of the head's dashboard. `token`: of the cluster, where it asks for one."""

    def __init__(self, client: httpx.AsyncClient, url: str, token: str | None) -> None:
        self._client = client
        self._url = f"{url}{DETAILS_PATH}"
        self._headers = {"authorization": f"Bearer {token}"} if token else {}

    async def details(self) -> dict[str, Any]:
        """Return Serve's applications, deployments, replicas and their ports. Raises EngineUnavailableError."""
        try:
            response = await self._client.get(self._url, headers=self._headers, timeout=10)
            response.raise_for_status()
            details = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise EngineUnavailableError(f"Ray's dashboard: {error or type(error).__name__}") from error
        if not isinstance(details, dict):
            raise EngineUnavailableError("Ray's dashboard: the response is not an object.")
        return details
