"""Classes of `settings` as a cluster's YAML writes them: the same fields, named in camelCase.

`to_settings` (`kube/shape.py`) turns a value into the `settings` object.
"""

from decimal import Decimal
from typing import Annotated

from pydantic import ConfigDict, Field

from quarterdeck.kube.resources.texts import MAX_REFERENCE, MAX_URL, ModelName
from quarterdeck.kube.shape import CAMEL, Rule, Shape, with_rules
from quarterdeck.settings import cache, limits, models, prices, routes


class PriceSpec(prices.Price):
    """Token and hardware prices in dollars. Write amounts in quotes: `input: "0.05"`."""

    model_config = CAMEL


class LimitsSpec(limits.Limits):
    """Limits of requests, tokens and concurrency. Unset: unlimited."""

    model_config = CAMEL


class BudgetSpec(limits.Budget):
    """A spending limit per period. Write the amount in quotes: `amount: "100"`."""

    model_config = CAMEL

    amount: Annotated[
        Decimal,
        Field(
            gt=0,
            max_digits=18,
            decimal_places=6,
            json_schema_extra=with_rules(
                Rule("type(self) == string ? double(self) > 0.0 : self > 0", "must be more than 0 dollars")
            ),
        ),
    ]
    """US dollars, in quotes."""


class RoutingSpec(routes.RoutingConfig):
    """How an endpoint of a model is chosen."""

    model_config = CAMEL


class TargetSpec(routes.Target):
    """A model behind a route."""

    model_config = CAMEL

    model: ModelName
    """Public name of a Model or ModelAdapter."""


class FallbackSpec(routes.Fallback):
    """A model used when the targets failed before the answer began."""

    model_config = CAMEL

    model: ModelName
    """Public name of a Model or ModelAdapter."""
    after: Annotated[tuple[routes.Condition, ...], Field(max_length=6)] = ("error", "timeout", "rate_limited", "queue")
    """Failures that trigger it: error (an engine failed, or none is ready), timeout, rate_limited (the engine is full),
    queue (no free slot in time), context_length, content_filter."""


class RouteTimeoutsSpec(routes.RouteTimeouts):
    """Timeouts in seconds; the gateway's values apply where unset."""

    model_config = CAMEL


class MirrorSpec(routes.MirrorConfig):
    """Sends a copy of some requests to another model and discards its answers."""

    model_config = CAMEL

    model: ModelName
    """Public name of a Model or ModelAdapter."""


class SemanticPolicySpec(cache.SemanticPolicy):
    """Also answer rephrased questions from the cache. Experimental, English only."""

    model_config = CAMEL

    embedding_model: ModelName
    """Public name of the model that computes embeddings. The threshold was measured with all-MiniLM-L6-v2."""


class CachePolicySpec(cache.CachePolicy):
    """How answers are cached."""

    model_config = ConfigDict(
        **CAMEL,
        json_schema_extra=with_rules(
            Rule("!has(self.semantic) || self.exact", "semantic needs the exact cache: leave `exact` at true")
        ),
    )

    semantic: SemanticPolicySpec | None = None
    """Semantic caching. Unset: only identical requests match."""


class HealthCheckSpec(routes.HealthCheck):
    """A periodic HTTP check that finds a dead endpoint before a request does."""

    model_config = CAMEL


class SecretKeyRef(Shape):
    """A key of a Secret in the object's namespace."""

    name: str = Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    """Name of the Secret."""
    key: str = Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")
    """Key within the Secret."""


FieldName = Annotated[str, Field(min_length=1, max_length=64)]
"""A member of a request."""


class EndpointSpec(models.EndpointConfig):
    """An external OpenAI-compatible server: a standalone vLLM, Ollama, a hosted API."""

    model_config = ConfigDict(
        **CAMEL,
        json_schema_extra=with_rules(
            Rule(
                "self.kind != 'vllm' || !self.url.contains('?')",
                "url has a query, which needs `kind: openai`",
            ),
        ),
    )

    url: Annotated[
        str,
        Field(
            max_length=MAX_URL,
            json_schema_extra=with_rules(
                Rule(
                    r"self.matches('^https?://[^/?#@\\s]+(/[^?#\\s]*)?([?][A-Za-z0-9._~=&%-]*)?$') && isURL(self)",
                    "must be http(s)://host[:port][/path] without user or fragment",
                )
            ),
        ),
    ]
    """Base URL: `http://ollama.default:11434`; `/v1` may be there or not. A path with a version of its own
    (`/v1beta/openai`, `/openai/deployments/name`) is kept, and a query (`?api-version=…`) is sent with every request;
    both for kinds other than vllm."""
    model: str | None = Field(default=None, max_length=MAX_REFERENCE)
    """The model's name on that server. Unset: the public name."""
    api_key_env: None = None
    api_key_file: None = None
    secret_ref: SecretKeyRef | None = None
    """The Secret's key that holds the server's API key. Unset: the server needs none."""
    send: Annotated[tuple[FieldName, ...], Field(max_length=64)] = ()
    """vLLM's own fields that this server knows as well (`top_k` for SGLang or llama.cpp)."""
    omit: Annotated[
        tuple[FieldName, ...],
        Field(
            max_length=64,
            json_schema_extra=with_rules(
                Rule(
                    "!self.exists(n, n in ['model', 'messages', 'prompt', 'input', 'stream'])",
                    "a request without model, messages, prompt, input or stream is none",
                )
            ),
        ),
    ] = ()
    """Fields that this server refuses. `stream_options`, `metadata`, `user` and the like need not be listed: the
    gateway learns from their refusal."""
    health: HealthCheckSpec | None = None
    """Active health check. Unset: only failed requests are noticed."""
