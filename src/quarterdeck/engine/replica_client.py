"""HTTP client of a replica's port: adapters, and the number of active requests."""

import re

import httpx

from quarterdeck.engine.adapters import Adapter
from quarterdeck.errors import EngineError, EngineUnavailableError

_RUNNING = re.compile(r"^vllm:num_requests_(?:running|waiting)\{[^}]*\} (\S+)$", re.MULTILINE)


class ReplicaClient:
    """Loading an adapter may take a minute."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def load(self, url: str, adapter: Adapter) -> None:
        # `load_inplace`: after a lost response the same adapter is loaded again, which is not an error.
        body = {"lora_name": adapter.name, "lora_path": str(adapter.path), "load_inplace": True}
        await self._post(f"{url}/v1/load_lora_adapter", body)

    async def unload(self, url: str, name: str) -> None:
        await self._post(f"{url}/v1/unload_lora_adapter", {"lora_name": name})

    async def active_requests(self, url: str) -> int:
        """Return how many requests run or wait. 0 if the replica does not answer: it has none to wait for."""
        try:
            response = await self._client.get(f"{url}/metrics", timeout=2)
        except httpx.HTTPError:
            return 0
        return int(sum(float(value) for value in _RUNNING.findall(response.text)))

    async def _post(self, url: str, body: dict[str, object]) -> None:
        try:
            response = await self._client.post(url, json=body, timeout=60)
        except httpx.HTTPError as error:
            raise EngineUnavailableError(f"The replica is unreachable: {error or type(error).__name__}") from error
        if response.status_code != 200:
            raise EngineError(f"The replica refused: {_reason(response)}")


def _reason(response: httpx.Response) -> str:
    try:
        answer = response.json()
        error = answer.get("error", answer)
        return str(error.get("message", error))
    except (ValueError, AttributeError):
        return f"status {response.status_code}"
