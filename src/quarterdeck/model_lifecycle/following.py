"""Follows the configuration for a door: the latest valid one counts."""

import logging
from collections.abc import Callable, Sequence

from quarterdeck.settings.loading import ConfigError
from quarterdeck.settings.models import ModelConfig
from quarterdeck.settings.source import ConfigSource

log = logging.getLogger(__name__)


async def follow(source: ConfigSource, apply: Callable[[Sequence[ModelConfig]], None]) -> None:
    """Hand every changed configuration to `apply`, until cancelled. An invalid one is logged, and the previous one
    stays in force."""
    while True:
        try:
            config = await source.changed()
        except ConfigError as error:
            log.error("invalid configuration, keeping the previous one: %s", error)
            continue
        for text in config.problems:
            log.warning("%s", text)
        apply(config.models)
