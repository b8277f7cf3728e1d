"""Whether Redis, its channel and the database can be reached, in metrics and in the log."""

import logging
from contextvars import Context

from quarterdeck.telemetry.gateway_metrics import GatewayMetrics

log = logging.getLogger(__name__)


class Connectivity:
    """Gets the state changes of the clients; `stop` is called before they are closed."""

    def __init__(self, metrics: GatewayMetrics) -> None:
        self._metrics = metrics
        self._is_stopped = False
        metrics.subscription_up.set(0)

    def redis(self, is_up: bool) -> None:
        self._metrics.redis_up.set(int(is_up))
        self._log("Redis", is_up)

    def database(self, is_up: bool) -> None:
        self._metrics.database_up.set(int(is_up))
        self._log("the database", is_up)

    def migrated(self) -> None:
        """The database is reachable and its tables are up to date."""
        self._metrics.database_up.set(1)

    def subscription(self, is_up: bool) -> None:
        self._metrics.subscription_up.set(int(is_up))

    def stop(self) -> None:
        """Log nothing from now on: the connections are closed by us."""
        self._is_stopped = True

    def _log(self, what: str, is_up: bool) -> None:
        if self._is_stopped:
            return
        # In a context of its own: the line is not about the request in whose context the connection was opened.
        if is_up:
            Context().run(log.info, "%s is reachable again", what)
        else:
            Context().run(log.error, "%s is unreachable", what)
