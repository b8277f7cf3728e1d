"""The queue: which requests run, limited by sequences (max-num-seqs), KV-cache blocks and adapters (max-loras)."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from quarterdeck.simulator.config import SimulatorConfig
from quarterdeck.simulator.errors import queue_full
from quarterdeck.simulator.scheduling.block_pool import BlockAllocation, BlockPool, HashedPrompt


@dataclass(slots=True, eq=False)
class ScheduledRequest:
    """A request that waits or runs. `private` is the number of blocks that it shares with none."""

    sequences: int
    prompts: list[HashedPrompt] = field(default_factory=list)
    private: int = 0
    adapter: str | None = None
    allocation: BlockAllocation = field(default_factory=BlockAllocation)
    admission: asyncio.Future[None] | None = None
    is_running: bool = False


class Scheduler:
    def __init__(self, config: Callable[[], SimulatorConfig], blocks: BlockPool | None) -> None:
        self._config = config
        self._blocks = blocks
        self._waiting: deque[ScheduledRequest] = deque()
        self._adapters: Counter[str] = Counter()
        self.running = 0
        self.running_requests = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def deferred(self) -> int:
        """How many requests wait for another adapter to finish, not for capacity."""
        return sum(1 for request in self._waiting if not self._adapter_fits(request))

    def adapters(self) -> tuple[list[str], list[str]]:
        """Return the names of the adapters that run and of those that wait."""
        waiting = {request.adapter for request in self._waiting if request.adapter}
        return sorted(name for name, count in self._adapters.items() if count), sorted(waiting)

    def enqueue(self, request: ScheduledRequest) -> None:
        """Start the request, or queue it. Raises VLLMError if the queue is full."""
        if not self._waiting and self._start(request):
            return
        if len(self._waiting) >= self._config().max_waiting_queue_length:
            raise queue_full()
        self._waiting.append(request)

    async def wait_until_running(self, request: ScheduledRequest) -> None:
        """Return once the request runs."""
        if not request.is_running:
            await self._wait(request)

    def grow(self, request: ScheduledRequest, private: int) -> bool:
        """Grow the request's private blocks to `private`. False: there is no room, and it must be preempted."""
        request.private = private
        if self._blocks is None:
            return True
        return self._blocks.grow(request.allocation, private, force=self.running_requests == 1)

    async def preempt(self, request: ScheduledRequest) -> None:
        """Free the request's blocks and its slot, and requeue it first; return once it runs again."""
        self._stop(request)
        self._waiting.appendleft(request)
        self.advance()
        await self.wait_until_running(request)

    def release(self, request: ScheduledRequest, written: list[int] | None = None) -> None:
        """Remove a request, running or waiting, and start the next ones."""
        if request.is_running:
            self._stop(request, written)
        elif request in self._waiting:
            self._waiting.remove(request)
        self.advance()

    def advance(self) -> None:
        """Start waiting requests in order. One that only waits for an adapter slot does not block those behind it."""
        stepped_over: list[ScheduledRequest] = []
        while self._waiting:
            request = self._waiting.popleft()
            if self._start(request):
                if request.admission is not None and not request.admission.done():
                    request.admission.set_result(None)
                continue
            stepped_over.append(request)
            if self._adapter_fits(request):
                break
        self._waiting.extendleft(reversed(stepped_over))

    async def _wait(self, request: ScheduledRequest) -> None:
        request.admission = asyncio.get_running_loop().create_future()
        try:
            await request.admission
        finally:
            request.admission = None

    def _adapter_fits(self, request: ScheduledRequest) -> bool:
        if request.adapter is None or self._adapters[request.adapter]:
            return True
        return sum(1 for count in self._adapters.values() if count) < self._config().max_loras

    def _start(self, request: ScheduledRequest) -> bool:
        limit = self._config().max_num_seqs
        if self.running + min(request.sequences, limit) > limit or not self._adapter_fits(request):
            return False
        if self._blocks is not None:
            # a request that runs alone is always admitted: no other would free blocks for it
            allocation = self._blocks.allocate(request.prompts, request.private, force=self.running_requests == 0)
            if allocation is None:
                return False
            request.allocation = allocation
        request.is_running = True
        self.running_requests += 1
        self.running += request.sequences
        if request.adapter is not None:
            self._adapters[request.adapter] += 1
        return True

    def _stop(self, request: ScheduledRequest, written: list[int] | None = None) -> None:
        request.is_running = False
        self.running_requests -= 1
        self.running -= request.sequences
        if request.adapter is not None:
            self._adapters[request.adapter] -= 1
        if self._blocks is not None:
            self._blocks.free(request.allocation, written or ())
