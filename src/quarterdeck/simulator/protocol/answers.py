"""What the answers of chat and text completions share, whole and as stream events, as vLLM writes them.

Keys, their order and nulls are vLLM's.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from msgspec.json import encode

from quarterdeck.simulator.config import VLLM_VERSION
from quarterdeck.simulator.faults import Faults
from quarterdeck.simulator.protocol.prepared_request import PreparedRequest
from quarterdeck.simulator.protocol.requests import Sampling
from quarterdeck.simulator.protocol.usage import usage_of, without_none

DONE = b"data: [DONE]\n\n"
FINGERPRINT = f"vllm-{VLLM_VERSION}-simulated"


def event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


class AnswerWriter(Protocol):
    """Writes one request's answer."""

    def opening(self) -> bytes:
        """Return the events before the first token."""

    def steps(self, begin: int, end: int) -> bytes:
        """Return the events of steps [begin, end) and the final events of choices that end there."""

    def closing(self) -> bytes:
        """Return the events after the last token, without [DONE]."""

    def whole(self) -> bytes:
        """Return the body of an answer that is not streamed."""


@dataclass(frozen=True, slots=True)
class AnswerContext:
    """What a writer needs besides the prepared request."""

    id: str
    model: str
    cached_tokens: Callable[[], int | None]
    faults: Faults


class BaseAnswerWriter:
    """Usage and the order of steps. Subclasses write the events of one token and of a choice's end."""

    object = ""

    def __init__(self, request: Sampling, prepared: PreparedRequest, context: AnswerContext) -> None:
        self.prepared = prepared
        self.context = context
        self.outputs = prepared.engine_request.outputs
        self.created = int(time.time())
        options = request.stream_options
        self.include_usage = bool(options and options.include_usage)
        self.continuous = bool(options and options.include_usage and options.continuous_usage_stats)
        self.token_ids = bool(request.return_token_ids)

    def steps(self, begin: int, end: int) -> bytes:
        events: list[bytes] = []
        for step in range(begin, end):
            for index, output in enumerate(self.outputs):
                if step < len(output.pieces):
                    events.extend(self.token(index, step))
        return b"".join(events)

    def closing(self) -> bytes:
        events = [self.end(index) for index, output in enumerate(self.outputs) if not output.pieces]
        if self.include_usage:
            usage = self.usage()
            chunk = self.head() | {"choices": []}
            if usage is not None:
                chunk["usage"] = without_none(usage)
            events.append(event(encode(chunk | {"system_fingerprint": FINGERPRINT})))
        return b"".join(events)

    def token(self, index: int, step: int) -> Iterator[bytes]:
        raise NotImplementedError

    def end(self, index: int) -> bytes:
        raise NotImplementedError

    def head(self) -> dict[str, Any]:
        return {"id": self.context.id, "object": self.object, "created": self.created, "model": self.context.model}

    def usage(self) -> dict[str, Any] | None:
        request = self.prepared.engine_request
        return usage_of(
            request.prompt_tokens, request.completion_tokens, self.context.cached_tokens(), self.context.faults
        )

    def running_usage(self, index: int, done: int) -> dict[str, Any]:
        prompt = len(self.prepared.engine_request.prompts[index // self.prepared.engine_request.n])
        return {"prompt_tokens": prompt, "total_tokens": prompt + done, "completion_tokens": done}

    def whole_usage(self) -> dict[str, Any]:
        usage = self.usage()
        return {} if usage is None else {"usage": usage}
