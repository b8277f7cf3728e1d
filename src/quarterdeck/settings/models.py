"""Models by public name: their engine or external endpoints, prices and routing."""

import re
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt, field_validator, model_validator

from quarterdeck.settings.content import CaptureLevel
from quarterdeck.settings.engine import EngineConfig
from quarterdeck.settings.prices import Price
from quarterdeck.settings.routes import HealthCheck, RoutingConfig

ProxyUse = Literal["auto", "always", "never"]
EndpointKind = Literal["vllm", "openai", "ollama"]
MediaOperation = Literal[
    "audio.transcriptions",
    "audio.translations",
    "audio.speech",
    "images.generations",
    "images.edits",
    "images.variations",
]
"""Operations that a model serves only where its configuration says so."""
_QUERY = re.compile(r"[A-Za-z0-9._~=&%-]*")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OWN_HEADERS = frozenset(
    ("host", "content-length", "content-type", "transfer-encoding", "connection", "accept", "authorization", "expect")
)


class EndpointConfig(BaseModel):
    """An external OpenAI-compatible server: a standalone vLLM, Ollama, a hosted API."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    url: str
    """Base URL: `http://10.0.0.7:8000`; `/v1` may be there or not. A path with a version of its own
    (`/v1beta/openai`, `/openai/deployments/name`) is kept, and a query (`?api-version=…`) is sent with every request;
    both for kinds other than vllm."""
    model: str | None = None
    """The model's name on that server. None: the public name."""
    api_key_env: str | None = None
    """Environment variable that holds its API key; the file never contains the key itself."""
    api_key_file: str | None = None
    """File that holds its API key, such as a mounted Kubernetes secret. Read again within seconds when it changes."""
    kind: EndpointKind = "vllm"
    """vllm: gets all fields and reports usage on request. openai, ollama: fields that only vLLM or the gateway know
    (`top_k`, `structured_outputs`, `cache`, …) are removed, the cap of a chat is sent as `max_tokens`, and missing
    token counts are estimated."""
    send: tuple[str, ...] = ()
    """vLLM's own fields that this server knows as well (`top_k` for SGLang or llama.cpp)."""
    omit: tuple[str, ...] = ()
    """Fields that this server refuses. `stream_options`, `metadata`, `user` and the like need not be listed: the
    gateway learns from their refusal."""
    api_key_header: str | None = None
    """Header that carries the API key. None: `authorization` with a bearer token, or `api-key` for a deployment of
    Azure's."""
    proxy: ProxyUse = "auto"
    """auto: through the proxy of `HTTPS_PROXY`/`HTTP_PROXY` unless `NO_PROXY` names the host or it is a loopback or
    cluster address. always: also then. never: directly."""
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
        if self.api_key_file and "\0" in self.api_key_file:
            raise ValueError("`api_key_file` contains a NUL character")
        if self.api_key_env and self.api_key_file:
            raise ValueError("set only one of `api_key_env` and `api_key_file`")
        return self

    @field_validator("omit")
    @classmethod
    def _leaves_a_request(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name in ("model", "messages", "prompt", "input", "stream"):
                raise ValueError(f"a request without {name!r} is none")
        return names

    @field_validator("api_key_header")
    @classmethod
    def _is_a_key_header(cls, name: str | None) -> str | None:
        if name is not None and (not _HEADER.fullmatch(name) or name.lower() in _OWN_HEADERS - {"authorization"}):
            raise ValueError(f"header {name!r} can't carry a key")
        return name if name is None else name.lower()

    @model_validator(mode="after")
    def _has_a_query_only_where_it_is_sent(self) -> Self:
        if self.kind == "vllm" and "?" in self.url:
            raise ValueError("`url` must be http(s)://host[:port][/path] without a query, which needs `kind: openai`")
        return self

    @property
    def base_url(self) -> str:
        """The URL without its query."""
        return self.url.partition("?")[0]

    @property
    def query(self) -> str:
        """The URL's query without the question mark."""
        return self.url.partition("?")[2]

    @property
    def key_header(self) -> str:
        """The header that carries the key."""
        if self.api_key_header is not None:
            return self.api_key_header
        return "api-key" if "/openai/deployments/" in self.url else "authorization"

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
            or parts.fragment
            or not _QUERY.fullmatch(parts.query)
            or parts.username
        ):
            raise ValueError("must be http(s)://host[:port][/path] without user or fragment")
        base, mark, query = url.partition("?")
        base = base.rstrip("/").removesuffix("/chat/completions").removesuffix("/v1")
        return base + mark + query if query else base


class ModelConfig(BaseModel):
    """One entry of `models:`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}(@[a-z0-9-]{1,32})?$")
    """The public name, used as `model` in requests. `name@revision` is a revision of the model or route `name`, as a
    target of its canary: it is not listed, and keys that may use `name` may use it."""
    aliases: tuple[str, ...] = ()
    """Other names of the model, for clients with a built-in name (`gpt-4o-mini`)."""
    engine: EngineConfig | None = None
    """An engine started by the platform (Ray Serve and vLLM). A change is followed while the platform runs: the changed
    engine starts beside the running one, which serves until then."""
    stopped: bool = False
    """Whether the model's engine stays stopped: the model remains configured and takes no memory. `quarterdeck models
    stop` and `start` set it."""
    endpoints: tuple[EndpointConfig, ...] = ()
    """External servers for the model, in addition to an engine or instead of one."""
    price: Price = Price()
    """Token and hardware prices. Default: free; the ledger records 0."""
    context: PositiveInt | None = None
    """Tokens of prompt and answer together, as its endpoints accept them. Limits and budgets reserve no more than this
    for a request. None: the engine's `context`, or what its vLLM endpoints say; unknown for other servers."""
    max_output_tokens: PositiveInt | None = None
    """Output tokens that a budget with `on_exhausted: deny` holds for a request that sets no limit, and that such a
    request may then generate: the endpoint is sent it as the limit. None: `context`, which needs no limit, or 4096
    where that is unknown."""
    image_tokens: PositiveInt = 2048
    """Prompt tokens that are reserved for one picture of a request, whatever its size. 2048: most models scale pictures
    down to fewer."""
    serves: tuple[MediaOperation, ...] = ()
    """Audio and image operations that the model's endpoints serve: `[audio.transcriptions, audio.translations]` for
    Whisper under vLLM. Requests for others are refused. Empty: a model of text and embeddings."""
    max_audio_seconds: PositiveInt | None = None
    """Seconds of audio that a budget holds for one file at most. None: as many as the file's size allows, which is
    more than it has: a second for each 1,000 bytes, or what a WAV file's header says. A file that states more than
    this (WAV, FLAC) holds what it states, as it would be billed by that."""
    content: CaptureLevel | None = None
    """What is kept of inputs and outputs of its requests, whichever route leads here. None: the model does not say."""
    too_long: Literal["refuse", "truncate"] | None = None
    """What an embedding model does with an input that is longer than it reads: `refuse` (400
    `context_length_exceeded`, as OpenAI), or `truncate` (only its beginning is embedded).

    None: truncate for the packaged embedding model, else refuse. The packaged one reads 256 tokens, and the default
    chunks of RAG clients are longer. Only vLLM can truncate; a request may choose by `truncate_prompt_tokens`.
    """
    token_ids: Literal["accept", "refuse"] = "accept"  # noqa: S105  # no password
    """What the model does with an `input` or `prompt` of token ids instead of text: `accept`, as OpenAI, or `refuse`
    (400 `token_ids_not_supported`).

    Ids mean what the model's own tokenizer says. LangChain's OpenAIEmbeddings sends those of OpenAI's tokenizer by
    default (`check_embedding_ctx_length`), which gives wrong vectors and no error.
    """
    routing: RoutingConfig = RoutingConfig()
    """How an endpoint is chosen."""
    cold_wait_seconds: NonNegativeFloat | None = None
    """How long a request waits while the model's engine has no ready replica, in seconds. 0: it gets 503
    `model_not_ready` at once. None: `queue.cold_wait_seconds`."""

    @property
    def truncates(self) -> bool:
        """Whether inputs that are too long to be embedded are truncated."""
        if self.too_long is not None:
            return self.too_long == "truncate"
        return self.engine is not None and self.engine.is_packaged and self.engine.task == "embed"

    @property
    def takes_token_ids(self) -> bool:
        return self.token_ids != "refuse"  # noqa: S105  # no password

    @model_validator(mode="after")
    def _is_answered_for(self) -> Self:
        if self.engine is None and not self.endpoints:
            raise ValueError(f"model {self.name!r} requires an `engine` or at least one entry in `endpoints`")
        return self
