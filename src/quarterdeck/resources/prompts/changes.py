"""Changes of prompts, announced to all gateways: each reads again what changed, within a second.

The database is the truth. A lost message costs up to half a minute: gateways compare revisions by poll.
"""

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from quarterdeck.errors import ServiceUnavailableError
from quarterdeck.net.redis import RedisError, RedisUnavailableError

log = logging.getLogger(__name__)

CHANNEL = "quarterdeck:prompts"


class PromptChange(msgspec.Struct, frozen=True):
    """A prompt that was changed or deleted."""

    org: str
    prompt: str
    """The prompt's id."""


def decode_prompt_change(message: bytes) -> PromptChange:
    """A message of CHANNEL. Raises ValueError if it is malformed or of a newer version."""
    return msgspec.json.decode(message, type=PromptChange)


class Redis(Protocol):
    async def call(self, *words: Any) -> Any: ...


class Catalogue(Protocol):
    """This process' own prompts."""

    async def catch_up(self, changes: Sequence[PromptChange] | None) -> None:
        """Raises ServiceUnavailableError."""
        ...


class PromptAnnouncer:
    """Makes a committed change take effect here, if this process has a catalogue, before the response is sent; and
    elsewhere soon after. Never fails: gateways compare revisions in any case."""

    def __init__(self, redis: Redis, catalogue: Catalogue | None = None) -> None:
        self._redis = redis
        self._catalogue = catalogue

    async def announce(self, change: PromptChange) -> None:
        if self._catalogue is not None:
            try:
                await self._catalogue.catch_up([change])
            except ServiceUnavailableError as error:  # the database went away after the commit
                log.warning("could not read a changed prompt again: %s", error)
        try:
            await self._redis.call("PUBLISH", CHANNEL, msgspec.json.encode(change))
        except (RedisUnavailableError, RedisError) as error:
            log.warning("could not publish change; peers will poll: %s", error)
