"""The directory: every model name of a configuration and what it stands for, as one immutable snapshot.

A request keeps the snapshot it began with, so a reload doesn't affect requests in progress.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from types import MappingProxyType
from typing import Literal

from quarterdeck.accounting.pricing import Rates
from quarterdeck.content import Level, strictest
from quarterdeck.inference.bounds import MAX_OUTPUT_TOKENS, UNKNOWN, Bounds, widest
from quarterdeck.net.http_connection import FOREVER, Timeouts
from quarterdeck.settings.config import Config, GatewayConfig
from quarterdeck.settings.models import ModelConfig
from quarterdeck.settings.prices import Price
from quarterdeck.settings.routes import Condition, RouteConfig, RoutingConfig
from quarterdeck.settings.snapshot import snapshot


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model or an adapter that requests can be sent to."""

    name: str
    """The model's or the adapter's name, as engines know it."""
    model: str
    """The base model's name."""
    price: Price
    price_version: str
    """`price.version`, computed once."""
    rates: Rates
    """The price per token, computed once."""
    routing: RoutingConfig = field(default_factory=RoutingConfig)
    """How one of the model's endpoints is chosen."""
    bounds: Bounds = UNKNOWN
    """The most tokens that a request may have."""
    truncates: bool = False
    """Whether it embeds the beginning of an input that is too long."""
    content: Level | None = None
    """What is kept of inputs and outputs. None: the model does not say."""
    is_vllm: bool = True
    """Whether all its endpoints are."""
    cold_wait_seconds: float | None = None
    """How long a request waits for its first endpoint. None: the queue's setting."""
    takes_token_ids: bool = True
    """Whether an input may be token ids."""
    serves: frozenset[str] = frozenset()
    """Audio and image operations that it serves (`models[].serves`)."""
    max_audio_seconds: int | None = None
    """Of one file, for budgets. None: by its size."""

    @property
    def public_name(self) -> str:
        """The name without a revision."""
        return self.name.partition("@")[0]

    @property
    def has_price(self) -> bool:
        rates = self.rates
        return bool(rates.input or rates.cached or rates.output or rates.gpu_hour or rates.units)


AFTER_FAILURES: frozenset[Condition] = frozenset(("error", "timeout", "rate_limited", "queue"))
"""When another target replaces the one that was drawn: after any failure except a refusal of the request itself."""


@dataclass(frozen=True, slots=True)
class Fallback:
    """A model that replaces another one after certain failures."""

    served: ServedModel
    after: frozenset[Condition] = AFTER_FAILURES
    contains: str | None = None
    """Also after an error whose message contains this."""


@dataclass(frozen=True, slots=True)
class Route:
    """How requests for a name are routed. A model's own name is a route with one target."""

    name: str
    targets: tuple[ServedModel, ...]
    cumulative_weights: tuple[float, ...]
    """Upper end of each target's interval on [0, 1)."""
    alternatives: tuple[Fallback, ...]
    """Targets by descending weight, then the fallbacks; without the target if it is the only one."""
    fallbacks: tuple[Fallback, ...]
    stickiness: Literal["none", "session", "prefix"]
    affinity: Literal["session", "prefix"] | None
    """What a request's affinity key is made from. None: it needs none."""
    routing: RoutingConfig
    """How the affinity key is made; also how an endpoint is chosen, if `overrides_routing`."""
    overrides_routing: bool
    """Whether the route's own `routing` replaces that of its models."""
    retries: int
    timeouts: Timeouts | None
    """None: the gateway's."""
    total_seconds: float
    """For the whole request, all attempts and waiting included."""
    mirror: tuple[ServedModel, float] | None = None
    """A model that a share of the requests is copied to."""
    bills_time: bool = False
    """Whether a model that may answer has a price for time at the engine."""
    is_named: bool = False
    """Whether it is one of `routes:`."""
    bounds: Bounds = UNKNOWN
    """The most tokens that a request may have, whichever model answers."""
    content: Level | None = None
    """What is kept of inputs and outputs: the strictest of what the route and the models that may answer say."""
    has_price: bool = field(init=False)
    """Whether one of the models that may answer costs anything."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "has_price", any(served.has_price for served in self.models))

    @classmethod
    def of_model(cls, served: ServedModel, gateway: GatewayConfig, *, name: str | None = None) -> "Route":
        """The route of a model's or an adapter's own name."""
        return cls(
            name=name or served.name,
            targets=(served,),
            cumulative_weights=(1.0,),
            alternatives=(),
            fallbacks=(),
            stickiness="none",
            affinity=_affinity("none", served.routing),
            routing=served.routing,
            overrides_routing=False,
            retries=gateway.retries,
            timeouts=None,
            total_seconds=gateway.total_timeout_seconds,
            bills_time=bool(served.rates.gpu_hour),
            bounds=served.bounds,
            content=served.content,
        )

    @classmethod
    def of(cls, config: RouteConfig, names: Mapping[str, ServedModel], gateway: GatewayConfig) -> "Route":
        """One of `routes:`. The configuration has been validated: every name it uses is in `names`."""
        total = sum(target.weight for target in config.targets)
        targets = tuple(names[target.model] for target in config.targets)
        weights = tuple(part / total for part in accumulate(target.weight for target in config.targets))
        by_weight = sorted(config.targets, key=lambda target: -target.weight)
        fallbacks = tuple(
            Fallback(names[each.model], frozenset(each.after), each.contains) for each in config.fallbacks
        )
        # A request has one affinity key. Of the models whose policies need one, the first says what it is made from.
        keyed = (each.routing for each in targets if each.routing.policy in ("session", "prefix"))
        routing = config.routing or next(keyed, targets[0].routing)
        own = config.timeouts
        usual = timeouts_of(gateway)
        timeouts = _timeouts(
            own.connect or usual.connect,
            own.first_token or usual.first_byte,
            own.idle or usual.idle,
            own.whole_answer or gateway.whole_answer_timeout_seconds,
        )
        return cls(
            name=config.name,
            targets=targets,
            cumulative_weights=weights,
            alternatives=(*(Fallback(names[target.model]) for target in by_weight), *fallbacks)
            if len(targets) > 1
            else fallbacks,
            fallbacks=fallbacks,
            stickiness=config.stickiness,
            affinity=_affinity(config.stickiness, routing),
            routing=routing,
            overrides_routing=config.routing is not None,
            retries=gateway.retries if config.retries is None else config.retries,
            timeouts=timeouts if own.connect or own.first_token or own.idle or own.whole_answer else None,
            total_seconds=own.total or gateway.total_timeout_seconds,
            mirror=(names[config.mirror.model], config.mirror.share) if config.mirror else None,
            bills_time=any(each.rates.gpu_hour for each in (*targets, *(each.served for each in fallbacks))),
            is_named=True,
            bounds=widest([each.bounds for each in (*targets, *(each.served for each in fallbacks))]),
            content=strictest(
                (config.content, *(each.content for each in (*targets, *(each.served for each in fallbacks))))
            ),
        )

    def is_allowed(self, name: str, allowed: frozenset[str]) -> bool:
        """Whether a key limited to the models `allowed` may use the route: by its name, or because it may use every
        model that may answer. Who may use a name may use its revisions."""
        return name in allowed or all(
            not allowed.isdisjoint((each.name, each.model, each.public_name)) for each in self.models
        )

    def serving(self, operation: str) -> "Route | None":
        """The route without models that don't serve an audio or image operation. None: none of its models does."""
        if all(operation in each.serves for each in self.models):
            return self
        lower = (0.0, *self.cumulative_weights)
        weighted = [
            (served, upper - below)
            for served, below, upper in zip(self.targets, lower, self.cumulative_weights, strict=False)
            if operation in served.serves
        ]
        alternatives = tuple(each for each in self.alternatives if operation in each.served.serves)
        if not weighted:
            if not alternatives:
                return None
            weighted = [(alternatives[0].served, 1.0)]
        total = sum(weight for _, weight in weighted)
        return replace(
            self,
            targets=tuple(served for served, _ in weighted),
            cumulative_weights=tuple(part / total for part in accumulate(weight for _, weight in weighted)),
            alternatives=alternatives,
            fallbacks=tuple(each for each in self.fallbacks if operation in each.served.serves),
        )

    @property
    def models(self) -> tuple[ServedModel, ...]:
        """Every model that may answer."""
        return (*self.targets, *(fallback.served for fallback in self.fallbacks))


def timeouts_of(gateway: GatewayConfig) -> Timeouts:
    """The timeouts of calls to engines whose route has none of its own."""
    return _timeouts(
        gateway.connect_timeout_seconds,
        gateway.first_token_timeout_seconds,
        gateway.idle_timeout_seconds,
        gateway.whole_answer_timeout_seconds,
    )


def _timeouts(connect: float, first_token: float, idle: float, whole: float | None) -> Timeouts:
    """`whole`: silence before and within an answer that is not streamed. None: only the request's total ends it."""
    silence = FOREVER if whole is None else whole
    return Timeouts(connect, first_token, idle, Timeouts(connect, silence, silence))


def _affinity(
    stickiness: Literal["none", "session", "prefix"], routing: RoutingConfig
) -> Literal["session", "prefix"] | None:
    """Stickiness and policy share one affinity key; where they disagree, stickiness decides."""
    if stickiness != "none":
        return stickiness
    return routing.policy if routing.policy in ("session", "prefix") else None


@dataclass(frozen=True, slots=True)
class Directory:
    """All model names of one configuration."""

    config: Config
    names: Mapping[str, ServedModel] = field(repr=False)
    """Models, aliases and adapters; under a route's name, its target with the highest weight."""
    routes: Mapping[str, Route] = field(repr=False)
    """The route of each of the names."""
    gateway: GatewayConfig = field(init=False, repr=False)
    """`config.gateway`, as a snapshot."""
    captures: bool = field(init=False, repr=False)
    """Whether inputs and outputs are captured where nothing else is said."""
    traces_engines: bool = field(init=False, repr=False)
    """`config.telemetry.engine_traceparent`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "gateway", snapshot(self.config.gateway))
        object.__setattr__(self, "captures", self.config.content.capture != "off")
        object.__setattr__(self, "traces_engines", self.config.telemetry.engine_traceparent)

    @classmethod
    def of(cls, config: Config) -> "Directory":
        names: dict[str, ServedModel] = {}
        for model in config.models:
            version, rates, bounds = model.price.version, Rates.of(model.price), _bounds(model)
            served = ServedModel(
                model.name,
                model.name,
                model.price,
                version,
                rates,
                model.routing,
                bounds,
                model.truncates,
                model.content,
                all(endpoint.kind == "vllm" for endpoint in model.endpoints),
                model.cold_wait_seconds,
                model.takes_token_ids,
                frozenset(model.serves),
                model.max_audio_seconds,
            )
            for name in (model.name, *model.aliases):
                names[name] = served
            for adapter in _adapters(model):
                names[adapter] = replace(served, name=adapter, truncates=False)
        routes = {name: Route.of_model(served, config.gateway) for name, served in names.items()}
        for route in config.routes:
            routes[route.name] = Route.of(route, names, config.gateway)
        for route in config.routes:
            names[route.name] = names[max(route.targets, key=lambda target: target.weight).model]
        return cls(config, MappingProxyType(names), MappingProxyType(routes))

    def adapter(self, name: str, model: str) -> ServedModel | None:
        """An adapter that an endpoint of `model` has loaded, at its model's price. None: no such model."""
        base = self.names.get(model)
        return replace(base, name=name, model=model) if base else None


def _bounds(model: ModelConfig) -> Bounds:
    context = model.context or (model.engine.context if model.engine and not model.endpoints else None)
    is_vllm = model.engine is not None or any(endpoint.kind == "vllm" for endpoint in model.endpoints)
    is_sent = model.max_output_tokens is not None or not is_vllm
    return Bounds(context, model.max_output_tokens or context or MAX_OUTPUT_TOKENS, is_sent, model.image_tokens)


def _adapters(model: ModelConfig) -> list[str]:
    return [adapter.name for adapter in model.engine.adapters] if model.engine else []
