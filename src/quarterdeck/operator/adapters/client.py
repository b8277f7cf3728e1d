"""HTTP client of an engine's adapter routes. Every call is bounded in time, and every answer is checked.

The texts of refusals are vLLM 0.29's, as it answered them (`tests/operator/fixtures/adapter_answers.json`).
"""

import re

import httpx

from quarterdeck.kube.conditions import Reason
from quarterdeck.operator.http_answers import Answer, fetch

LIST_SECONDS = 5.0
LOAD_SECONDS = 120.0
"""Loading downloads the adapter where its source is the hub."""
PROBE_SECONDS = 60.0
"""The first request to an adapter may compile kernels."""
MAX_MESSAGE = 300

_ALREADY_LOADED = "has already been loaded"
_NOT_LOADED = "cannot be found"
_RANK = re.compile(r"LoRA rank \d+ is greater than max_lora_rank \d+")
_NOT_FOUND = re.compile(r"No adapter found for|No such file or directory")
_MISMATCH = re.compile(
    r"size of tensor|size mismatch|expected target modules|doesn't contain tensors|deserializing header|"
    r"does not (?:yet )?support DoRA|not supported|only supports modules_to_save|Expecting |LoRA size|"
    r"unsupported LoRA weight|Missing required configuration fields|must be consistent with the base model"
)
_WRAPPED = re.compile(
    r"Worker failed with error '(.*)', please check the stack trace above for the root cause", re.DOTALL
)


class AdapterError(Exception):
    """A call failed. `reason` is a condition's; the message is one sentence."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


class EngineUnreachableError(AdapterError):
    """The engine did not answer, so that nothing is known of what it has."""

    def __init__(self, error: Exception) -> None:
        super().__init__(Reason.ADAPTER_LOAD_FAILED, f"The engine does not answer: {error or type(error).__name__}.")


class AdapterClient:
    """`client` carries no credentials: engines are reached inside the cluster only."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def loaded(self, url: str) -> set[str]:
        """Names of the adapters that the engine has. Raises AdapterError."""
        response = await self._send("GET", f"{url}/v1/models", None, LIST_SECONDS)
        try:
            models = response.json()["data"]
            return {str(each["id"]) for each in models if each.get("parent")}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise AdapterError(Reason.ADAPTER_LOAD_FAILED, "The engine's list of models is invalid.") from None

    async def load(self, url: str, engine_name: str, path: str) -> None:
        """Load an adapter, unless the engine has it. Raises AdapterError."""
        # Never `load_inplace`: with it, vLLM reads the files from disk at every step of a request.
        body: dict[str, object] = {"lora_name": engine_name, "lora_path": path}
        try:
            await self._send("POST", f"{url}/v1/load_lora_adapter", body, LOAD_SECONDS)
        except AdapterError as error:
            if _ALREADY_LOADED not in error.message:  # after an answer that was lost; equal names are equal contents
                raise

    async def unload(self, url: str, engine_name: str) -> None:
        """Unload an adapter, if the engine has it. Raises AdapterError."""
        try:
            await self._send("POST", f"{url}/v1/unload_lora_adapter", {"lora_name": engine_name}, LIST_SECONDS)
        except AdapterError as error:
            if _NOT_LOADED not in error.message:
                raise

    async def probe(self, url: str, engine_name: str) -> None:
        """Ask the adapter for one token. Raises AdapterError."""
        body = {"model": engine_name, "prompt": "Hi", "max_tokens": 1}
        try:
            response = await self._send("POST", f"{url}/v1/completions", body, PROBE_SECONDS)
        except EngineUnreachableError:
            raise
        except AdapterError as error:
            message = f"The adapter is loaded, and a request to it failed: {error.message}"
            raise AdapterError(Reason.ADAPTER_PROBE_FAILED, message) from None
        try:
            is_answer = bool(response.json()["choices"])
        except (ValueError, KeyError, TypeError):
            is_answer = False
        if not is_answer:
            raise AdapterError(
                Reason.ADAPTER_PROBE_FAILED, "The adapter is loaded, and its answer to a probe is invalid."
            )

    async def _send(self, method: str, url: str, body: dict[str, object] | None, seconds: float) -> Answer:
        try:
            answer = await fetch(self._client, method, url, json=body, seconds=seconds)
        except httpx.HTTPError as error:
            raise EngineUnreachableError(error) from error
        if answer.status == 200:
            return answer
        raise refusal(answer.status, _message(answer), url)


def refusal(status: int, message: str, url: str = "") -> AdapterError:
    """The engine's refusal with its reason."""
    if wrapped := _WRAPPED.search(message):
        message = wrapped[1]
    message = " ".join(message.split())[:MAX_MESSAGE]
    if _RANK.search(message):
        reason = Reason.ADAPTER_RANK_TOO_LARGE
    elif _NOT_FOUND.search(message):
        reason = Reason.ADAPTER_NOT_FOUND
    elif _MISMATCH.search(message):
        reason = Reason.ADAPTER_MISMATCH
    elif status in (404, 405) and url.endswith("_lora_adapter") and _NOT_LOADED not in message:
        reason, message = Reason.ADAPTERS_DISABLED, "The engine does not load adapters at run time."
    else:
        reason = Reason.ADAPTER_LOAD_FAILED
    return AdapterError(reason, message if message.endswith(".") else f"{message}.")


def _message(response: Answer) -> str:
    """The error's message, in vLLM's shape or another."""
    try:
        answer = response.json()
        error = answer.get("error", answer)
        return str(error.get("message") or error.get("detail") or error)
    except (ValueError, AttributeError):
        return f"status {response.status}"
