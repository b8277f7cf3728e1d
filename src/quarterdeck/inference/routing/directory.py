"""Which names there are and what they mean: one immutable snapshot of the configuration, swapped whole.

Every request takes the snapshot once and keeps it, so a reload in the middle of a request changes nothing for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from types import MappingProxyType
from typing import Literal

from quarterdeck.accounting.pricing import Rates
from quarterdeck.net.http_client import Timeouts
from quarterdeck.settings.config import Config, GatewayConfig
from quarterdeck.settings.models import ModelConfig
from quarterdeck.settings.prices import Price
from quarterdeck.settings.routes import Condition, RouteConfig, RoutingConfig


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What a name stands for: the model, and the adapter on it if the name is an adapter's."""

    name: str
    """As engines know it: the model's or the adapter's name."""
    model: str
    """The base model's name."""
    price: Price
    price_version: str
    """`price.version`, computed once."""
    rates: Rates
    """The price, ready to be multiplied."""
    routing: RoutingConfig = field(default_factory=RoutingConfig)
    """How one of its model's endpoints is chosen."""


AFTER_FAILURES: frozenset[Condition] = frozenset(("error", "timeout", "rate_limited", "queue"))
"""When another target stands in: it is as good as the one that was drawn, unless the request itself was refused."""


@dataclass(frozen=True, slots=True)
class Fallback:
    """Who is asked after which failures."""

    served: ServedModel
    after: frozenset[Condition] = AFTER_FAILURES
    contains: str | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """What is done with a name's requests. A model's own name is a route of one target."""

    name: str
    targets: tuple[ServedModel, ...]
    upto: tuple[float, ...]
    """Each target's place on [0, 1): it is drawn below this and not below the one before."""
    stand_ins: tuple[Fallback, ...]
    """All targets, the heavier first, then the fallbacks."""
    fallbacks: tuple[Fallback, ...]
    stickiness: Literal["none", "session", "prefix"]
    affinity: Literal["session", "prefix"] | None
    """What has to be known of a request to choose for it."""
    routing: RoutingConfig
    """Where to look for that."""
    is_own: bool
    """Whether `routing` is the route's, and holds for every model it comes to."""
    retries: int
    timeouts: Timeouts | None
    """None: the gateway's."""
    total_seconds: float
    mirror: tuple[ServedModel, float] | None = None
    is_named: bool = False
    """Whether it is one of `routes:`."""

    @classmethod
    def to(cls, served: ServedModel, gateway: GatewayConfig, *, name: str | None = None) -> "Route":
        """A model's or an adapter's own."""
        return cls(
            name=name or served.name,
            targets=(served,),
            upto=(1.0,),
            stand_ins=(),
            fallbacks=(),
            stickiness="none",
            affinity=_affinity("none", served.routing),
            routing=served.routing,
            is_own=False,
            retries=gateway.retries,
            timeouts=None,
            total_seconds=gateway.total_timeout_seconds,
        )

    @classmethod
    def of(cls, config: RouteConfig, names: Mapping[str, ServedModel], gateway: GatewayConfig) -> "Route":
        """One of `routes:`. Every name it uses is in `names`; the configuration has seen to it."""
        total = sum(target.weight for target in config.targets)
        targets = tuple(names[target.model] for target in config.targets)
        upto = tuple(part / total for part in accumulate(target.weight for target in config.targets))
        heavier = sorted(config.targets, key=lambda target: -target.weight)
        fallbacks = tuple(
            Fallback(names[each.model], frozenset(each.after), each.contains) for each in config.fallbacks
        )
        # One key serves all: where the models' own policies need one, the first that does says from what.
        keyed = (each.routing for each in targets if each.routing.policy in ("session", "prefix"))
        routing = config.routing or next(keyed, targets[0].routing)
        own = config.timeouts
        usual = timeouts_of(gateway)
        timeouts = Timeouts(own.connect or usual.connect, own.first_token or usual.first_byte, own.idle or usual.idle)
        return cls(
            name=config.name,
            targets=targets,
            upto=upto,
            stand_ins=(*(Fallback(names[target.model]) for target in heavier), *fallbacks)
            if len(targets) > 1
            else fallbacks,
            fallbacks=fallbacks,
            stickiness=config.stickiness,
            affinity=_affinity(config.stickiness, routing),
            routing=routing,
            is_own=config.routing is not None,
            retries=gateway.retries if config.retries is None else config.retries,
            timeouts=timeouts if own.connect or own.first_token or own.idle else None,
            total_seconds=own.total or gateway.total_timeout_seconds,
            mirror=(names[config.mirror.model], config.mirror.share) if config.mirror else None,
            is_named=True,
        )

    def is_allowed(self, name: str, allowed: frozenset[str]) -> bool:
        """Whether a key that may use `allowed` may call this by `name`: because that is allowed, or everybody is who
        may answer."""
        return name in allowed or all(not allowed.isdisjoint((each.name, each.model)) for each in self.answering)

    @property
    def answering(self) -> tuple[ServedModel, ...]:
        """Everybody who may answer."""
        return (*self.targets, *(fallback.served for fallback in self.fallbacks))


def timeouts_of(gateway: GatewayConfig) -> Timeouts:
    """The time-outs of calls to engines whose route has none of its own."""
    return Timeouts(gateway.connect_timeout_seconds, gateway.first_token_timeout_seconds, gateway.idle_timeout_seconds)


def _affinity(
    stickiness: Literal["none", "session", "prefix"], routing: RoutingConfig
) -> Literal["session", "prefix"] | None:
    """Stickiness and policy share one key; where they name two, the target's decides."""
    if stickiness != "none":
        return stickiness
    return routing.policy if routing.policy in ("session", "prefix") else None


@dataclass(frozen=True, slots=True)
class Directory:
    """All names of one configuration."""

    config: Config
    names: Mapping[str, ServedModel] = field(repr=False)
    """Models, aliases, adapters; and each route's heaviest target by the route's name."""
    routes: Mapping[str, Route] = field(repr=False)
    """What is done with a request for each of the names."""

    @classmethod
    def of(cls, config: Config) -> "Directory":
        names: dict[str, ServedModel] = {}
        for model in config.models:
            version, rates = model.price.version, Rates.of(model.price)
            served = ServedModel(model.name, model.name, model.price, version, rates, model.routing)
            for name in (model.name, *model.aliases):
                names[name] = served
            for adapter in _adapters(model):
                names[adapter] = ServedModel(adapter, model.name, model.price, version, rates, model.routing)
        routes = {name: Route.to(served, config.gateway) for name, served in names.items()}
        for route in config.routes:
            routes[route.name] = Route.of(route, names, config.gateway)
        for route in config.routes:
            names[route.name] = names[max(route.targets, key=lambda target: target.weight).model]
        return cls(config, MappingProxyType(names), MappingProxyType(routes))

    def adapter(self, name: str, model: str) -> ServedModel | None:
        """An adapter that an endpoint of `model` holds, priced as its model."""
        base = self.names.get(model)
        return ServedModel(name, model, base.price, base.price_version, base.rates, base.routing) if base else None


def _adapters(model: ModelConfig) -> list[str]:
    return [adapter.name for adapter in model.engine.adapters] if model.engine else []
