"""HTTP client of a replica's port: adapters, and the number of active requests."""

import re

import httpx

from quarterdeck.engine.adapter_store import Adapter
from quarterdeck.errors import EngineError, EngineUnavailableError

_ALREADY_LOADED = "has already been loaded"
"""In vLLM's refusal of a name that it has."""
_RUNNING = re.compile(r"^vllm:num_requests_(?:running|waiting)\{[^}]*\} (\S+)$", re.MULTILINE)


class ReplicaClient:
    """Loading an adapter may take a minute."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def load(self, url: str, adapter: Adapter) -> None:
        """Load an adapter, unless the replica has it. Raises EngineError."""
        # Never `load_inplace`: with it, vLLM reads the files from disk at every step of a request.
        body: dict[str, object] = {"lora_name": adapter.engine_name, "lora_path": str(adapter.path)}
        try:
            await self._post(f"{url}/v1/load_lora_adapter", body)
        except EngineError as error:
            # After a lost response. Equal names are equal contents.
            if _ALREADY_LOADED not in error.message:
                raise

    async def unload(self, url: str, engine_name: str) -> None:
        await self._post(f"{url}/v1/unload_lora_adapter", {"lora_name": engine_name})

    async def active_requests(self, url: str) -> int:
        """Return how many requests run or wait. 0 if the replica does not answer: it has none to wait for."""
        try:
            response = await self._client.get(f"{url}/metrics", timeout=2)
        except httpx.HTTPError:
            return 0
        return int(sum(float(value) for value in _RUNNING.findall(response.text)))

    async def adapters(self, url: str) -> list[str]:
        """Return the engine's names of the loaded adapters. Raises EngineError."""
        try:
            response = await self._client.get(f"{url}/v1/models", timeout=2)
            models = response.json()["data"]
            return [str(model["id"]) for model in models if model.get("parent")]
        except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise EngineUnavailableError(f"The replica does not list its models: {type(error).__name__}") from error

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
