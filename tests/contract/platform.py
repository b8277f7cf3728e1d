"""The platform of the contract tests and its keys."""

import asyncio
from dataclasses import dataclass

import openai
from tests.platform import GatewayProcess, SimulatorProcess
from tests.servers import wait_until

from quarterdeck.accounting.redis_keys import stream_key
from quarterdeck.net.redis import Redis
from quarterdeck.record import RequestRecord, decode

USER, ADMIN, NARROW, SLOW, REVOKED, EXPIRED, POOR, WARNED, PAINTS = (
    f"sk-qd-{name}" for name in ("user", "admin", "narrow", "slow", "revoked", "expired", "poor", "warned", "paints")
)


@dataclass(frozen=True, slots=True)
class Platform:
    """A running platform with its keys."""

    simulator: SimulatorProcess
    gateway: GatewayProcess
    redis_url: str

    @property
    def base_url(self) -> str:
        return self.gateway.url + "/v1"

    def client(self, key: str = USER, **options: object) -> openai.OpenAI:
        """The real SDK with strict validation and without retries."""
        return openai.OpenAI(**self._options(key, options))  # type: ignore[arg-type]

    def async_client(self, key: str = USER, **options: object) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(**self._options(key, options))  # type: ignore[arg-type]

    def record(self, request_id: str) -> RequestRecord:
        """Wait for the request's record in the ledger stream."""
        found: list[RequestRecord] = []

        def is_there() -> bool:
            found.extend(r for r in asyncio.run(self._records()) if r.id == request_id)
            return bool(found)

        wait_until(is_there, seconds=5, what=lambda: f"no record of {request_id}")
        assert len(found) == 1
        return found[0]

    async def _records(self) -> list[RequestRecord]:
        redis = Redis(self.redis_url)
        try:
            entries = await redis.call("XREVRANGE", stream_key("default"), "+", "-", "COUNT", 50)
        finally:
            await redis.close()
        return [decode(fields[1]) for _, fields in entries]

    def _options(self, key: str, options: dict[str, object]) -> dict[str, object]:
        defaults = {"max_retries": 0, "timeout": 20.0, "_strict_response_validation": True}
        return {"base_url": self.base_url, "api_key": key, **defaults, **options}
