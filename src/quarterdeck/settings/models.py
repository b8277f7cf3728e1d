"""A model as users name it: who answers for it (an engine of ours, or endpoints elsewhere) and what it costs."""

import re
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from quarterdeck.settings.engine import EngineConfig
from quarterdeck.settings.prices import Price
from quarterdeck.settings.routes import HealthCheck, RoutingConfig

EndpointKind = Literal["vllm", "openai", "ollama"]
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OWN_HEADERS = frozenset(
    ("host", "content-length", "content-type", "transfer-encoding", "connection", "accept", "authorization", "expect")
)


class EndpointConfig(BaseModel):
    """An OpenAI-compatible server that we did not start: a standalone vLLM, Ollama, a hosted API."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    url: str
    """Where its `/v1/…` routes begin, without `/v1`: `http://10.0.0.7:8000`."""
    model: str | None = None
    """The model's name over there. None: the same name as here."""
    api_key_env: str | None = None
    """The environment variable that holds its key; the key itself never stands in the file."""
    api_key_file: str | None = None
    """The file that holds its key, as Kubernetes mounts a secret. It is read with the configuration."""
    kind: EndpointKind = "vllm"
    """vllm: is sent everything and counts tokens when asked. openai, ollama: are not sent what only vLLM knows
    (`top_k`, `structured_outputs`, …), and tokens that nobody counted are estimated."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Sent with every request (`OpenAI-Organization`). No secrets: they stand in this file."""
    health: HealthCheck | None = None
    """How it is asked whether it lives. None: only failed requests tell."""
    max_running: PositiveInt = 64
    """Requests it runs at once before it queues; the weight of least-load."""

    @field_validator("headers")
    @classmethod
    def _may_be_sent(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if name.lower() in _OWN_HEADERS or not _HEADER.fullmatch(name):
                raise ValueError(f"the header {name!r} can't be set")
            if not value.isascii() or not value.isprintable():
                raise ValueError(f"the header {name!r} has a value that is not printable ASCII")
        return headers

    @model_validator(mode="after")
    def _has_one_key(self) -> Self:
        if self.api_key_env and self.api_key_file:
            raise ValueError("give one of `api_key_env` and `api_key_file`")
        return self

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
    routing: RoutingConfig = RoutingConfig()
    """How one of its endpoints is chosen."""

    @model_validator(mode="after")
    def _is_answered_for(self) -> Self:
        if self.engine is None and not self.endpoints:
            raise ValueError(f"model {self.name!r} needs an `engine` or at least one of `endpoints`")
        return self
