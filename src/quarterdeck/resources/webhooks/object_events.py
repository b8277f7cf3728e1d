"""Events of objects that end: background responses and batches.

An event carries the object's id alone, as OpenAI's do: the receiver retrieves the object with its own key, so a webhook
shows nothing that a key may not read.
"""

import logging
from collections.abc import Callable

from quarterdeck.resources.webhooks.events import RETRY_SECONDS, new_event
from quarterdeck.settings.webhooks import WebhooksConfig
from quarterdeck.store.database import Transaction
from quarterdeck.store.webhook_outbox import Event, Recorded, WebhookOutbox

log = logging.getLogger(__name__)

KEEP_SECONDS = 30 * 86_400.0


class ObjectEvents:
    """Records each event once for a type and an object, however often it is called. `settings` may change."""

    def __init__(self, outbox: WebhookOutbox, settings: Callable[[], WebhooksConfig]) -> None:
        self._outbox = outbox
        self._settings = settings

    async def record(self, type: str, org: str, id: str, *, now: float) -> None:
        """Record that the object `id` has ended. Raises DatabaseUnavailableError."""
        recorded = await self._outbox.record(
            _event(type, org, id, now), retry_until=now + RETRY_SECONDS, max_waiting=self._settings().max_waiting
        )
        _warn_of_dropped(recorded, type, org)

    async def record_on(self, transaction: Transaction, type: str, org: str, id: str, *, now: float) -> None:
        """`record` in the transaction that stores the object's final state, so that both happen or neither."""
        recorded = await self._outbox.record_on(
            transaction,
            _event(type, org, id, now),
            retry_until=now + RETRY_SECONDS,
            max_waiting=self._settings().max_waiting,
        )
        _warn_of_dropped(recorded, type, org)


def _event(type: str, org: str, id: str, now: float) -> Event:
    return new_event(type, org, {"id": id}, now=now, key=f"{type}/{id}", expires=now + KEEP_SECONDS)


def _warn_of_dropped(recorded: Recorded, type: str, org: str) -> None:
    if recorded.dropped:
        log.warning(
            "webhook deliveries dropped: too many are waiting",
            extra={"event_type": type, "org": org, "deliveries": recorded.dropped},
        )
