"""A background response that this gateway executes."""

import asyncio

from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import AuthenticationError
from quarterdeck.resources.responses.event_mapper import EventMapper
from quarterdeck.resources.responses.requests import ResponseRequest
from quarterdeck.resources.responses.watching import Result
from quarterdeck.store.background_responses import Execution as Taken


class Run:
    """`taken`: the response, with the steps of earlier attempts. `principal`: the key that pays."""

    def __init__(self, taken: Taken, mapper: EventMapper, request: ResponseRequest, principal: Principal) -> None:
        self.taken = taken
        self.principal = principal
        self.mapper = mapper
        self.request = request
        self.stored = len(taken.steps)
        """How many of its steps are stored."""
        self.is_continuable = False
        """Whether an engine can continue the text of this turn."""
        self.has_called = False
        """Whether this execution has called an engine."""
        self.is_over = False
        """It was cancelled, deleted or refused: nothing of it is executed again, here or elsewhere."""
        self.refusal: AuthenticationError | None = None
        """Its key was revoked while it ran."""
        self.task: asyncio.Task[Result] | None = None

    def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def refuse(self, error: AuthenticationError) -> None:
        self.refusal, self.is_over = error, True
        self.stop()

    def is_repeated(self) -> bool:
        """Whether an engine call that is cut off is made again: by the gateway that executes the response next."""
        return not self.is_over
