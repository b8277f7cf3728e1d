"""Models by public name: their engine or external endpoints, prices and routing."""

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from quarterdeck.settings.engine import EngineConfig
from quarterdeck.settings.prices import Price
from quarterdeck.settings.restart import NeedsRestart
from quarterdeck.settings.routes import HealthCheck, RoutingConfig

EndpointKind = Literal["vllm", "openai", "ollama"]
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OWN_HEADERS = frozenset(
    ("host", "content-length", "content-type", "transfer-encoding", "connection", "accept", "authorization", "expect")
)


class EndpointConfig(BaseModel):
    """An external OpenAI-compatible server: a standalone vLLM, Ollama, a hosted API."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    url: str
    """Base URL without `/v1`: `http://10.0.0.7:8000`."""
    model: str | None = None
    """The model's name on that server. None: the public name."""
    api_key_env: str | None = None
    """Environment variable that holds its API key; the file never contains the key itself."""
    api_key_file: str | None = None
    """File that holds its API key, such as a mounted Kubernetes secret. Read together with the configuration."""
    kind: EndpointKind = "vllm"
    """vllm: gets all fields and reports usage on request. openai, ollama: vLLM's own fields (`top_k`,
    `structured_outputs`, …) are removed, and missing token counts are estimated."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Headers sent with every request (`OpenAI-Organization`). Not for secrets: the file is not secret."""
    health: HealthCheck | None = None
    """Active health check. None: only failed requests are noticed."""
    max_running: PositiveInt = 64
    """Requests it runs at once before it queues; the weight for least_load."""

    @field_validator("headers")
    @classmethod
    def _may_be_sent(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if name.lower() in _OWN_HEADERS or not _HEADER.fullmatch(name):
                raise ValueError(f"header {name!r} can't be set")
            if not value.isascii() or not value.isprintable():
                raise ValueError(f"header {name!r} has a value that is not printable ASCII")
        return headers

    @model_validator(mode="after")
    def _has_one_key(self) -> Self:
        if self.api_key_env and self.api_key_file:
            raise ValueError("set only one of `api_key_env` and `api_key_file`")
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
    """The public name, used as `model` in requests."""
    aliases: tuple[str, ...] = ()
    """Other names of the model, for clients with a built-in name (`gpt-4o-mini`)."""
    engine: Annotated[EngineConfig | None, NeedsRestart("engine")] = None
    """An engine started by the platform (Ray Serve and vLLM)."""
    endpoints: tuple[EndpointConfig, ...] = ()
    """External servers for the model, in addition to an engine or instead of one."""
    price: Price = Price()
    """Token and hardware prices. Default: free; the ledger records 0."""
    context: PositiveInt | None = None
    """Tokens of prompt and answer together, as its endpoints accept them. Limits and budgets reserve no more than this
    for a request. None: the engine's `context`; unknown for external endpoints."""
    max_output_tokens: PositiveInt | None = None
    """Output tokens that a budget with `on_exhausted: deny` holds for a request that sets no limit, and that such a
    request may then generate: the endpoint is sent it as the limit. None: `context`, which needs no limit, or 4096."""
    image_tokens: PositiveInt = 2048
    """Prompt tokens that are reserved for one picture of a request, whatever its size. 2048: most models scale pictures
    down to fewer."""
    routing: RoutingConfig = RoutingConfig()
    """How an endpoint is chosen."""

    @model_validator(mode="after")
    def _is_answered_for(self) -> Self:
        if self.engine is None and not self.endpoints:
            raise ValueError(f"model {self.name!r} requires an `engine` or at least one entry in `endpoints`")
        return self
