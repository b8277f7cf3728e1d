"""Every name of a configuration, and what it stands for."""

from decimal import Decimal

import pytest

from quarterdeck.inference.routing.directory import Directory
from quarterdeck.settings.loading import parse
from quarterdeck.settings.prices import Price

DIRECTORY = Directory.of(
    parse("""
models:
  - name: a
    aliases: [gpt-4o-mini, gpt-4]
    engine: {source: a, max_adapters: 1, adapters: [{name: pirate, source: ./pirate}]}
    price: {input: "1", output: "2"}
  - name: org/b
    endpoints: [{url: "http://h"}]
""")
)


@pytest.mark.parametrize(
    ("name", "stands_for", "model"),
    [
        ("a", "a", "a"),
        ("gpt-4o-mini", "a", "a"),
        ("gpt-4", "a", "a"),
        ("pirate", "pirate", "a"),
        ("org/b", "org/b", "org/b"),
    ],
)
def test_a_name_stands_for_a_model_or_an_adapter(name: str, stands_for: str, model: str) -> None:
    served = DIRECTORY.names.get(name)
    assert served is not None
    assert (served.name, served.model) == (stands_for, model)
    assert served.price_version == served.price.version


def test_an_adapter_costs_what_its_model_costs() -> None:
    base, adapter = DIRECTORY.names.get("a"), DIRECTORY.names.get("pirate")
    assert base is not None
    assert adapter is not None
    assert adapter.price == base.price


def test_an_adapter_that_was_loaded_later_is_priced_as_its_model() -> None:
    served = DIRECTORY.adapter("parrot", "a")
    assert served is not None
    assert (served.name, served.model, served.price) == ("parrot", "a", Price(input=Decimal(1), output=Decimal(2)))
    assert DIRECTORY.adapter("parrot", "nobody") is None


def test_other_names_stand_for_nothing() -> None:
    assert DIRECTORY.names.get("parrot") is None
    assert DIRECTORY.names.get("A") is None
