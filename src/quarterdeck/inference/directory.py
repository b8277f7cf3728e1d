"""Which names there are and what they mean: one immutable snapshot of the configuration, swapped whole.

Every request takes the snapshot once and keeps it, so a reload in the middle of a request changes nothing for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from quarterdeck.inference.pricing import Rates
from quarterdeck.settings.config import Config
from quarterdeck.settings.models import ModelConfig
from quarterdeck.settings.prices import Price


@dataclass(frozen=True, slots=True)
class Served:
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


@dataclass(frozen=True, slots=True)
class Directory:
    """All names of one configuration."""

    config: Config
    names: Mapping[str, Served] = field(repr=False)

    @classmethod
    def of(cls, config: Config) -> "Directory":
        names: dict[str, Served] = {}
        for model in config.models:
            version, rates = model.price.version, Rates.of(model.price)
            served = Served(model.name, model.name, model.price, version, rates)
            for name in (model.name, *model.aliases):
                names[name] = served
            for adapter in _adapters(model):
                names[adapter] = Served(adapter, model.name, model.price, version, rates)
        return cls(config, MappingProxyType(names))

    def resolve(self, name: str) -> Served | None:
        """None where the configuration does not know the name: an adapter loaded later is known to endpoints only."""
        return self.names.get(name)

    def adapter(self, name: str, model: str) -> Served | None:
        """An adapter that an endpoint of `model` holds, priced as its model."""
        base = self.names.get(model)
        return Served(name, model, base.price, base.price_version, base.rates) if base else None


def _adapters(model: ModelConfig) -> list[str]:
    return [adapter.name for adapter in model.engine.adapters] if model.engine else []
