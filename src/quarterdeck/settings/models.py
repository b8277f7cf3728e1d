"""A model as users name it: who answers for it (an engine of ours, or endpoints elsewhere) and what it costs."""

from typing import Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from quarterdeck.settings.engine import EngineConfig
from quarterdeck.settings.prices import Price


class EndpointConfig(BaseModel):
    """An OpenAI-compatible server that we did not start: a standalone vLLM, Ollama, a hosted API."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    url: str
    """Where its `/v1/…` routes begin, without `/v1`: `http://10.0.0.7:8000`."""
    model: str | None = None
    """The model's name over there. None: the same name as here."""
    api_key_env: str | None = None
    """The environment variable that holds its key; the key itself never stands in the file."""
    max_running: PositiveInt = 64
    """Requests it runs at once before it queues; the weight of least-load."""

    @field_validator("url")
    @classmethod
    def _is_a_base_url(cls, url: str) -> str:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = 0
        if (
            port == 0
            or parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.query
            or parts.fragment
            or parts.username
        ):
            raise ValueError("must be http(s)://host[:port][/path] without user, query or fragment")
        return url.rstrip("/").removesuffix("/v1")


class ModelConfig(BaseModel):
    """One entry of `models:`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")
    """The public name, what a request says in `model`."""
    aliases: tuple[str, ...] = ()
    """Other names for the same model, for clients that have one built in (`gpt-4o-mini`)."""
    engine: EngineConfig | None = None
    """An engine that the platform starts for it (Ray Serve and vLLM)."""
    endpoints: tuple[EndpointConfig, ...] = ()
    """Servers elsewhere that answer for it. Beside an engine, or instead of one."""
    price: Price = Price()
    """What it costs. Default: nothing, and the ledger says 0."""

    @model_validator(mode="after")
    def _is_answered_for(self) -> Self:
        if self.engine is None and not self.endpoints:
            raise ValueError(f"model {self.name!r} needs an `engine` or at least one of `endpoints`")
        return self
