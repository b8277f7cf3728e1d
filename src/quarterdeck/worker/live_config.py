"""The configuration that a worker works with: followed from its source, and kept where a new one is invalid."""

import logging
import re

from quarterdeck.redaction.redactor import Redactor
from quarterdeck.settings.batches import BatchesConfig
from quarterdeck.settings.config import Config
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.file_storage import FilesConfig
from quarterdeck.settings.live import Live
from quarterdeck.settings.loading import ConfigError
from quarterdeck.settings.source import ConfigSource
from quarterdeck.settings.telemetry import ENVIRONMENT_PATTERN, TelemetryConfig
from quarterdeck.settings.webhooks import WebhooksConfig

log = logging.getLogger(__name__)


class LiveConfig:
    """`telemetry` is what `source` holds now, or the defaults if it is invalid. `config` is all that it holds; None: it
    is invalid."""

    def __init__(
        self, environment: Environment, source: ConfigSource, telemetry: TelemetryConfig, config: Config | None
    ) -> None:
        self._environment = environment
        self._source = source
        self._config = Live(config)
        self.telemetry = Live(with_otel(telemetry, environment))
        """With OpenTelemetry's variables applied."""
        self.redactor = self._config.select(lambda each: None if each is None else Redactor(each.content.redaction))

    @property
    def current(self) -> Config | None:
        """None: no valid configuration was read yet."""
        return self._config.current

    @property
    def batches(self) -> BatchesConfig:
        """The defaults while the configuration is invalid."""
        return BatchesConfig() if (found := self.current) is None else found.batches

    @property
    def files(self) -> FilesConfig:
        return FilesConfig() if (found := self.current) is None else found.files

    @property
    def webhooks(self) -> WebhooksConfig:
        """The settings in force; the defaults while the configuration is invalid."""
        config = self._config.current
        return WebhooksConfig() if config is None else config.webhooks

    async def run(self) -> None:
        """Apply changed labels and sampling of traces, and what is redacted and deleted of contents."""
        while True:
            try:
                config = await self._source.changed()
            except ConfigError as error:
                log.error("invalid configuration refused, keeping the previous one: %s", error)
                continue
            self._config.replace(config)
            telemetry = with_otel(config.telemetry, self._environment)
            if telemetry != self.telemetry.current:
                self.telemetry.replace(telemetry)
                log.info("trace settings changed", extra=telemetry.model_dump(exclude={"sinks"}))


def with_otel(telemetry: TelemetryConfig, environment: Environment) -> TelemetryConfig:
    """The labels of traces, as OpenTelemetry's variables change them. Pure."""
    labels = {}
    if environment.otel_service_name:
        labels["service_name"] = environment.otel_service_name
    attributes = environment.otel_attributes
    stage = attributes.get("deployment.environment.name") or attributes.get("deployment.environment")
    if stage and re.fullmatch(ENVIRONMENT_PATTERN, stage):  # else it is part of the resource only
        labels["environment"] = stage
    return telemetry.model_copy(update=labels)
