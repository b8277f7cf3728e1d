"""Classes of `settings` as a cluster's YAML writes them: the same fields, named in camelCase.

`to_settings` (`kube/shape.py`) turns a value into the `settings` object.
"""

from pydantic import Field

from quarterdeck.kube.shape import CAMEL, Shape
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


class RoutingSpec(routes.RoutingConfig):
    """How an endpoint of a model is chosen."""

    model_config = CAMEL


class TargetSpec(routes.Target):
    """A model behind a route."""

    model_config = CAMEL


class FallbackSpec(routes.Fallback):
    """A model used when the targets failed before the answer began."""

    model_config = CAMEL


class RouteTimeoutsSpec(routes.RouteTimeouts):
    """Timeouts in seconds; the gateway's values apply where unset."""

    model_config = CAMEL


class MirrorSpec(routes.MirrorConfig):
    """Sends a copy of some requests to another model and discards its answers."""

    model_config = CAMEL


class SemanticPolicySpec(cache.SemanticPolicy):
    """Also answer rephrased questions from the cache. Experimental, English only."""

    model_config = CAMEL


class CachePolicySpec(cache.CachePolicy):
    """How answers are cached."""

    model_config = CAMEL

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


class EndpointSpec(models.EndpointConfig):
    """An external OpenAI-compatible server: a standalone vLLM, Ollama, a hosted API."""

    model_config = CAMEL

    api_key_env: None = None
    api_key_file: None = None
    secret_ref: SecretKeyRef | None = None
    """The Secret's key that holds the server's API key. Unset: the server needs none."""
    health: HealthCheckSpec | None = None
    """Active health check. Unset: only failed requests are noticed."""
