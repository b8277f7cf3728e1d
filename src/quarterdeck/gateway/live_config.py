"""Reloads the gateway's configuration: a valid one replaces the current one whole, an invalid one is refused.

A refusal is logged with the lines of the file, counted, and shown in `/readyz` until the file is valid again.
"""

import logging
from collections.abc import Callable

from quarterdeck.settings.config import Config
from quarterdeck.settings.loading import ConfigError
from quarterdeck.settings.restart import changes_needing_restart
from quarterdeck.settings.source import ConfigSource

log = logging.getLogger(__name__)


class ConfigReloader:
    """Follows `source`. `apply` gets each valid configuration; `on_outcome` is called with `applied` or `refused`."""

    def __init__(
        self,
        source: ConfigSource,
        config: Config,
        apply: Callable[[Config], None],
        on_outcome: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        self._source = source
        self._config = config
        self._apply = apply
        self._on_outcome = on_outcome
        self.error: str | None = None
        """Why the configuration as it stands in its source is refused. None: it is in force."""

    def reload(self) -> None:
        """Read the source now, even if nothing changed (SIGHUP)."""
        self._source.refresh()

    async def run(self) -> None:
        """Apply changes until cancelled."""
        while True:
            try:
                config = await self._source.changed()
                self._put_in_force(config)
            except Exception as error:  # an error boundary: the configuration in force stays, whatever is wrong
                self.error = str(error) or type(error).__name__
                self._on_outcome("refused")
                is_expected = isinstance(error, ConfigError)
                log.error(
                    "invalid configuration refused, keeping the previous one: %s", error, exc_info=not is_expected
                )
                continue
            before, self._config = self._config, config
            self.error = None
            self._on_outcome("applied")
            log.info("configuration reloaded: %d models", len(config.models))
            for problem in config.problems:
                log.warning("added model left out: %s", problem)
            for change in changes_needing_restart(before, config):
                log.warning("setting %s changed; needs a restart of the %s", change.setting, change.process)

    def _put_in_force(self, config: Config) -> None:
        """Whole, or not at all: where a part refuses it, the parts that have adopted it get the previous one back."""
        try:
            self._apply(config)
        except Exception:
            self._apply(self._config)
            raise
