"""One request's way through the engine: it waits for a place, its prompt is read, then a token a step.

A step is one token of every answer of the request (choices run side by side). Whoever asks is told how many steps are
done by now: late by more than a token, it gets several at once, so an overloaded process sends less often, not later.
"""

from dataclasses import dataclass

from quarterdeck.simulator.engine import Engine
from quarterdeck.simulator.model.stop_conditions import Written
from quarterdeck.simulator.scheduling.block_pool import chain
from quarterdeck.simulator.scheduling.latency import between_tokens, to_first_token
from quarterdeck.simulator.scheduling.scheduler import Ticket


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be computed: `answers` are prompt by prompt, n each."""

    prompts: list[list[str]]
    answers: list[Written]
    n: int = 1
    max_tokens: int = 0
    adapter: str | None = None
    salt: str | None = None

    @property
    def prompt_tokens(self) -> int:
        return sum(map(len, self.prompts))

    @property
    def completion_tokens(self) -> int:
        return sum(len(answer.pieces) for answer in self.answers)


class Decoding:
    def __init__(self, engine: Engine, job: Job) -> None:
        self._engine = engine
        self._job = job
        self._lengths = [len(answer.pieces) for answer in job.answers]
        self.total = max(self._lengths, default=0)
        self.done = 0
        self.cached_tokens = 0
        self._prompt_read = False
        self._closed = False
        size = engine.config.block_size
        self._size = size
        self._tails = [len(prompt) % size for prompt in job.prompts for _ in range(job.n)]
        prompts = []
        if engine.blocks is not None and job.answers:
            salt = (job.adapter, job.salt)
            prompts = [(chain(prompt, size, salt), len(prompt)) for prompt in job.prompts]
        self._ticket = Ticket(max(len(job.answers), 1), prompts, self._private(0), job.adapter)
        self._arrived = self._admitted = self._first = self._last = self._due = engine.clock.now()

    def finished(self) -> bool:
        return self._prompt_read and self.done >= self.total

    def enqueue(self) -> None:
        """Take a place, or wait for one. Raises Refusal where too many wait."""
        self._engine.scheduler.enqueue(self._ticket)

    async def begin(self) -> None:
        """Return once the request runs."""
        await self._engine.scheduler.runs(self._ticket)
        self._admitted = self._engine.clock.now()
        self.cached_tokens = self._ticket.lease.cached_tokens
        self._plan_prefill(self.cached_tokens)
        metrics = self._engine.metrics
        if self._engine.blocks is not None and self._job.answers:
            metrics.count("vllm:prefix_cache_queries", self._job.prompt_tokens)
            metrics.count("vllm:prefix_cache_hits", self.cached_tokens)
        metrics.observe("vllm:request_queue_time_seconds", self._admitted - self._arrived)

    async def advance(self, stride: int = 1) -> int:
        """Wait for the next steps, `stride` of them at least; answer how many are done."""
        clock, config = self._engine.clock, self._engine.config
        while not self._engine.scheduler.grow(self._ticket, self._private(min(self.done + stride, self.total))):
            await self._preempted()
        goal = min(self.done + (stride if self._prompt_read else 1), self.total)
        done, due, last = self.done, self._due, self._due
        while done < goal:
            last, done, due = due, done + 1, due + self._gap()
        await clock.sleep_until(last)
        now = clock.now()
        if config.inter_token_latency == 0:
            done = self.total
        while done < self.total and due <= now:
            done, due = done + 1, due + self._gap()
        before, self.done, self._due = self.done, done, due
        self._count(before, now)
        return done

    def close(self, *, aborted: bool = False) -> None:
        """The request has ended, whichever way; its place and its blocks are free."""
        if self._closed:
            return
        self._closed = True
        written: list[int] = []
        if self._engine.blocks is not None and self._job.answers:
            prompt, answer = self._job.prompts[0], self._job.answers[0]
            whole = [*prompt, *answer.pieces[: self.done]]
            known = len(self._ticket.prompts[0][0])
            written = chain(whole, self._size, (self._job.adapter, self._job.salt))[known:]
        self._engine.scheduler.release(self._ticket, written)
        self._count_end(aborted)

    async def _preempted(self) -> None:
        self._engine.metrics.count("vllm:num_preemptions")
        await self._engine.scheduler.preempt(self._ticket)
        self._plan_prefill(self._ticket.lease.cached_tokens, self.done)

    def _plan_prefill(self, cached: int, written: int = 0) -> None:
        engine = self._engine
        uncached = max(self._job.prompt_tokens + written - cached, 0)
        self._due = engine.clock.now() + to_first_token(
            engine.config, engine.random, uncached=uncached, running=engine.scheduler.running
        )

    def _gap(self) -> float:
        engine = self._engine
        if not engine.config.inter_token_latency:
            return 0.0
        return between_tokens(engine.config, engine.random, running=engine.scheduler.running)

    def _private(self, done: int) -> int:
        """Blocks of its own at this step: the prompt's last one, not full, and what the answer fills."""
        if self._engine.blocks is None:
            return 0
        return sum(
            -(-(tail + min(length, done)) // self._size)
            for tail, length in zip(self._tails, self._lengths, strict=False)
        )

    def _count(self, before: int, now: float) -> None:
        metrics, job = self._engine.metrics, self._job
        if not self._prompt_read:
            self._prompt_read = True
            self._first = now
            computed = job.prompt_tokens - self.cached_tokens
            metrics.count("vllm:prompt_tokens", job.prompt_tokens)
            metrics.count("vllm:prompt_tokens_cached", self.cached_tokens)
            metrics.count("vllm:prompt_tokens_by_source", computed, "local_compute")
            metrics.count("vllm:prompt_tokens_by_source", self.cached_tokens, "local_cache_hit")
            metrics.observe("vllm:request_prefill_kv_computed_tokens", computed)
            if job.answers:
                metrics.time_to_first_token.observe(now - self._arrived)
        steps = self.done - before
        if steps and before:
            metrics.inter_token_latency.observe((now - self._last) / steps, steps)
        elif steps > 1:
            metrics.inter_token_latency.observe(0.0, steps - 1)
        self._last = now
        if len(self._lengths) == 1:
            tokens = steps
        else:
            tokens = sum(min(length, self.done) - min(length, before) for length in self._lengths)
        if tokens:
            metrics.count("vllm:generation_tokens", tokens)
            metrics.observe("vllm:iteration_tokens_total", tokens)

    def _count_end(self, aborted: bool) -> None:
        metrics, job = self._engine.metrics, self._job
        now = self._engine.clock.now()
        for answer, length in zip(job.answers, self._lengths, strict=True):
            ended = self._prompt_read and self.done >= length and not aborted
            metrics.count("vllm:request_success", 1, answer.finish_reason if ended else "abort")
            metrics.observe("vllm:request_generation_tokens", min(length, self.done))
        metrics.observe("vllm:request_prompt_tokens", job.prompt_tokens)
        metrics.observe("vllm:e2e_request_latency_seconds", now - self._arrived)
        metrics.observe("vllm:request_inference_time_seconds", now - self._admitted)
        metrics.observe("vllm:request_prefill_time_seconds", max(self._first - self._admitted, 0.0))
        if not job.answers:
            return
        metrics.observe("vllm:request_decode_time_seconds", max(self._last - self._first, 0.0))
        metrics.observe("vllm:request_params_n", job.n)
        metrics.observe("vllm:request_params_max_tokens", job.max_tokens)
        metrics.observe("vllm:request_max_num_generation_tokens", job.max_tokens)
        if self.done > 1:
            metrics.observe("vllm:request_time_per_output_token_seconds", (self._last - self._first) / (self.done - 1))
