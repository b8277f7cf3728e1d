"""Who runs and who waits: places (max-num-seqs), blocks, and different adapters (max-loras)."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from quarterdeck.simulator.config import SimulatorConfig
from quarterdeck.simulator.errors import queue_full
from quarterdeck.simulator.scheduling.block_pool import Blocks, Lease, Prompt


@dataclass(slots=True, eq=False)
class Ticket:
    """One request's claim to run."""

    sequences: int
    prompts: list[Prompt] = field(default_factory=list)
    private: int = 0
    adapter: str | None = None
    lease: Lease = field(default_factory=Lease)
    called: asyncio.Future[None] | None = None
    running: bool = False


class Scheduler:
    def __init__(self, config: Callable[[], SimulatorConfig], blocks: Blocks | None) -> None:
        self._config = config
        self._blocks = blocks
        self._waiting: deque[Ticket] = deque()
        self._adapters: Counter[str] = Counter()
        self.running = 0
        self.requests = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def deferred(self) -> int:
        """Those that wait for an adapter's place, not for their own."""
        return sum(1 for ticket in self._waiting if not self._adapter_fits(ticket))

    def adapters(self) -> tuple[list[str], list[str]]:
        """Names of those that run, and of those that wait."""
        waiting = {ticket.adapter for ticket in self._waiting if ticket.adapter}
        return sorted(name for name, count in self._adapters.items() if count), sorted(waiting)

    def enqueue(self, ticket: Ticket) -> None:
        """Run it, or let it wait. Raises Refusal where too many wait."""
        if not self._waiting and self._start(ticket):
            return
        if len(self._waiting) >= self._config().max_waiting_queue_length:
            raise queue_full()
        self._waiting.append(ticket)

    async def runs(self, ticket: Ticket) -> None:
        """Return once the request runs."""
        if not ticket.running:
            await self._wait(ticket)

    def grow(self, ticket: Ticket, private: int) -> bool:
        """Give the request so many blocks of its own; False where it has to be preempted."""
        ticket.private = private
        if self._blocks is None:
            return True
        return self._blocks.grow(ticket.lease, private, force=self.requests == 1)

    async def preempt(self, ticket: Ticket) -> None:
        """Take back the request's blocks and its place; return once it runs again."""
        self._stop(ticket)
        self._waiting.appendleft(ticket)
        self.advance()
        await self.runs(ticket)

    def release(self, ticket: Ticket, written: list[int] | None = None) -> None:
        """The request has ended, ran or waited; the next may run."""
        if ticket.running:
            self._stop(ticket, written)
        elif ticket in self._waiting:
            self._waiting.remove(ticket)
        self.advance()

    def advance(self) -> None:
        """Let those run that can, in order; one that lacks only an adapter's place is stepped over."""
        stepped_over: list[Ticket] = []
        while self._waiting:
            ticket = self._waiting.popleft()
            if self._start(ticket):
                if ticket.called is not None and not ticket.called.done():
                    ticket.called.set_result(None)
                continue
            stepped_over.append(ticket)
            if self._adapter_fits(ticket):
                break
        self._waiting.extendleft(reversed(stepped_over))

    async def _wait(self, ticket: Ticket) -> None:
        ticket.called = asyncio.get_running_loop().create_future()
        try:
            await ticket.called
        finally:
            ticket.called = None

    def _adapter_fits(self, ticket: Ticket) -> bool:
        if ticket.adapter is None or self._adapters[ticket.adapter]:
            return True
        return sum(1 for count in self._adapters.values() if count) < self._config().max_loras

    def _start(self, ticket: Ticket) -> bool:
        most = self._config().max_num_seqs
        if self.running + min(ticket.sequences, most) > most or not self._adapter_fits(ticket):
            return False
        if self._blocks is not None:
            # whoever runs alone always fits: nobody would ever make room for it
            lease = self._blocks.open(ticket.prompts, ticket.private, force=self.requests == 0)
            if lease is None:
                return False
            ticket.lease = lease
        ticket.running = True
        self.requests += 1
        self.running += ticket.sequences
        if ticket.adapter is not None:
            self._adapters[ticket.adapter] += 1
        return True

    def _stop(self, ticket: Ticket, written: list[int] | None = None) -> None:
        ticket.running = False
        self.requests -= 1
        self.running -= ticket.sequences
        if ticket.adapter is not None:
            self._adapters[ticket.adapter] -= 1
        if self._blocks is not None:
            self._blocks.close(ticket.lease, written or ())
