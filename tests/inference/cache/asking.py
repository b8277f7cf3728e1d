"""What is asked in these tests, and under which configuration."""

from typing import Any

from tests.records import a_record

from quarterdeck.accounting.principal import Principal
from quarterdeck.inference.cache.key import Plan, Plans
from quarterdeck.inference.routing.directory import Directory
from quarterdeck.record import RequestRecord
from quarterdeck.settings.config import Config
from quarterdeck.settings.limits import Limits
from quarterdeck.settings.loading import parse

MODELS = """
models:
  - {name: m, aliases: [gpt], endpoints: [{url: "http://one"}]}
  - {name: other, endpoints: [{url: "http://two"}]}
"""
ALICE = Principal("key_a", "a", "default", "red", Limits())


def config(cache: str = "{default: {exact: true}}", models: str = MODELS) -> Config:
    return parse(f"{models}\ncache: {cache}")


def plan_of(config: Config, name: str = "m") -> Plan | None:
    served = Directory.of(config).names.get(name)
    assert served is not None
    return Plans(config).plan(name, served)


def a_finished(**changes: Any) -> RequestRecord:
    """The record of a stream that one endpoint gave whole."""
    return a_record(**({"resumed": 0} | changes))
