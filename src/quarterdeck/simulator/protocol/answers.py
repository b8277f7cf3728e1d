"""Answers as vLLM writes them, whole and as events: the keys, their order, the nulls."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from msgspec.json import encode

from quarterdeck.simulator.config import VLLM_VERSION
from quarterdeck.simulator.faults import Faults
from quarterdeck.simulator.model.prepared_request import Asked
from quarterdeck.simulator.model.tokenizer import token_id
from quarterdeck.simulator.protocol import logprobs
from quarterdeck.simulator.protocol.requests import ChatRequest, CompletionRequest, Sampling
from quarterdeck.simulator.protocol.tool_calls import call_id, deltas
from quarterdeck.simulator.protocol.usage import parse_usage, without_none

DONE = b"data: [DONE]\n\n"
FINGERPRINT = f"vllm-{VLLM_VERSION}-simulated"


def event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


class Answer(Protocol):
    """One request's answer."""

    def opening(self) -> bytes:
        """The events before the first token."""

    def steps(self, begin: int, end: int) -> bytes:
        """The events of the steps from `begin` to before `end`, and of choices that end there."""

    def closing(self) -> bytes:
        """The events after the last token, without [DONE]."""

    def whole(self) -> bytes:
        """The plain answer."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What an answer needs to know beside what was asked."""

    id: str
    model: str
    cached_tokens: Callable[[], int | None]
    faults: Faults


class _Answer:
    """What chat and completions share: usage, and the steps' order."""

    object = ""

    def __init__(self, request: Sampling, asked: Asked, facts: Facts) -> None:
        self.asked = asked
        self.facts = facts
        self.answers = asked.job.answers
        self.created = int(time.time())
        options = request.stream_options
        self.include_usage = bool(options and options.include_usage)
        self.continuous = bool(options and options.include_usage and options.continuous_usage_stats)
        self.token_ids = bool(request.return_token_ids)

    def steps(self, begin: int, end: int) -> bytes:
        events: list[bytes] = []
        for step in range(begin, end):
            for index, answer in enumerate(self.answers):
                if step < len(answer.pieces):
                    events.extend(self.token(index, step))
        return b"".join(events)

    def closing(self) -> bytes:
        events = [self.end(index) for index, answer in enumerate(self.answers) if not answer.pieces]
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
        return {"id": self.facts.id, "object": self.object, "created": self.created, "model": self.facts.model}

    def usage(self) -> dict[str, Any] | None:
        job = self.asked.job
        return parse_usage(job.prompt_tokens, job.completion_tokens, self.facts.cached_tokens(), self.facts.faults)

    def running_usage(self, index: int, done: int) -> dict[str, Any]:
        prompt = len(self.asked.job.prompts[index // self.asked.job.n])
        return {"prompt_tokens": prompt, "total_tokens": prompt + done, "completion_tokens": done}

    def whole_usage(self) -> dict[str, Any]:
        usage = self.usage()
        return {} if usage is None else {"usage": usage}


class ChatAnswer(_Answer):
    object = "chat.completion.chunk"

    def __init__(self, request: ChatRequest, asked: Asked, facts: Facts) -> None:
        super().__init__(request, asked, facts)
        self._top = (request.top_logprobs or 0) if request.logprobs else None
        self._role = "assistant" if request.add_generation_prompt else request.messages[-1]["role"]
        self._deltas = [list(deltas(asked.call, answer.pieces)) for answer in self.answers] if asked.call else []
        self._plain = self._top is None and not self._deltas and not self.continuous and not self.token_ids
        start = event(encode(self.head() | {"choices": []}))[: -len(b"]}\n\n")]
        self._prefixes = [start + b'{"index":%d,"delta":{"content":' % index for index in range(len(self.answers))]

    def opening(self) -> bytes:
        events = []
        for index in range(len(self.answers)):
            choice = {
                "index": index,
                "delta": {"role": self._role, "content": ""},
                "logprobs": None,
                "finish_reason": None,
            }
            prompt = [token_id(piece) for piece in self.asked.job.prompts[0]] if self.token_ids else None
            chunk = self.head() | {"choices": [choice], "prompt_token_ids": prompt, "prompt_text": None}
            if self.continuous:
                chunk["usage"] = self.running_usage(index, 0)
            events.append(event(encode(chunk)))
        return b"".join(events)

    def token(self, index: int, step: int) -> Iterator[bytes]:
        answer = self.answers[index]
        last = step == len(answer.pieces) - 1
        with_end = last and (answer.finish_reason == "length" or answer.stop_reason is not None)
        if self._plain and not with_end:
            content = encode(answer.pieces[step])
            yield self._prefixes[index] + content + b'},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n'
        else:
            yield from self._choice(index, step, with_end)
        if last and not with_end:
            yield self.end(index)

    def end(self, index: int) -> bytes:
        delta: dict[str, Any] = {} if self._deltas else {"content": ""}
        choice = {"index": index, "delta": delta, "logprobs": None}
        return self._chunk(index, choice | self._ending(index), len(self.answers[index].pieces), None)

    def whole(self) -> bytes:
        choices = []
        for index, answer in enumerate(self.answers):
            choices.append(
                {
                    "index": index,
                    "message": self._message(index),
                    "logprobs": None if self._top is None else logprobs.chat(answer.pieces, 0, self._top),
                    "finish_reason": self._finish_reason(index),
                    "stop_reason": answer.stop_reason,
                    "token_ids": [token_id(piece) for piece in answer.pieces] if self.token_ids else None,
                    "routed_experts": None,
                }
            )
        prompt = [token_id(piece) for piece in self.asked.job.prompts[0]] if self.token_ids else None
        return encode(
            self.head()
            | {"object": "chat.completion", "choices": choices, "service_tier": None}
            | {"system_fingerprint": FINGERPRINT}
            | self.whole_usage()
            | {
                "prompt_logprobs": None,
                "prompt_token_ids": prompt,
                "prompt_text": None,
                "kv_transfer_params": None,
                "ec_transfer_params": None,
                "metrics": None,
            }
        )

    def _choice(self, index: int, step: int, with_end: bool) -> Iterator[bytes]:
        answer = self.answers[index]
        piece = answer.pieces[step]
        delta: dict[str, Any] = {"content": piece}
        if self._deltas:
            said = self._deltas[index][step]
            if said is None and not with_end:
                return
            delta = {} if said is None else {"tool_calls": [said]}
        found = None if self._top is None else logprobs.chat([piece], step, self._top)
        choice = {"index": index, "delta": delta, "logprobs": found}
        ending = self._ending(index) if with_end else {"finish_reason": None}
        yield self._chunk(index, choice | ending, step + 1, [token_id(piece)])

    def _ending(self, index: int) -> dict[str, Any]:
        return {"finish_reason": self._finish_reason(index), "stop_reason": self.answers[index].stop_reason}

    def _chunk(self, index: int, choice: dict[str, Any], done: int, tokens: list[int] | None) -> bytes:
        choice["token_ids"] = tokens if self.token_ids else None
        chunk = self.head() | {"choices": [choice]}
        if self.continuous:
            chunk["usage"] = self.running_usage(index, done)
        if choice["finish_reason"] is not None and not self.include_usage:
            chunk["system_fingerprint"] = FINGERPRINT
        return event(encode(chunk))

    def _finish_reason(self, index: int) -> str:
        answer = self.answers[index]
        if self.asked.call is not None and answer.finish_reason == "stop" and answer.stop_reason is None:
            return self.asked.call.finish_reason
        return answer.finish_reason

    def _message(self, index: int) -> dict[str, Any]:
        answer, call = self.answers[index], self.asked.call
        calls: list[dict[str, Any]] = []
        content: str | None = answer.text
        if call is not None:
            content = "" if call.head.startswith("[") or not call.head else None
            if answer.finish_reason == "stop" or not call.head:
                arguments = {"name": call.name, "arguments": call.arguments(answer.text)}
                calls = [{"id": call_id(), "type": "function", "function": arguments}]
        return {
            "role": self._role,
            "content": content,
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            **({"tool_calls": calls} if calls else {}),
            "reasoning": None,
        }


class CompletionAnswer(_Answer):
    object = "text_completion"

    def __init__(self, request: CompletionRequest, asked: Asked, facts: Facts) -> None:
        super().__init__(request, asked, facts)
        self._echo = bool(request.echo)
        self._top = request.logprobs

    def opening(self) -> bytes:
        return b""

    def token(self, index: int, step: int) -> Iterator[bytes]:
        answer = self.answers[index]
        last = step == len(answer.pieces) - 1
        with_end = last and (answer.finish_reason == "length" or answer.stop_reason is not None)
        yield self._chunk(index, step, answer.pieces[step], with_end)
        if last and not with_end:
            yield self.end(index)

    def end(self, index: int) -> bytes:
        return self._chunk(index, len(self.answers[index].pieces), None, True)

    def whole(self) -> bytes:
        choices = []
        for index, answer in enumerate(self.answers):
            text, prompt = self._prompt(index) if self._echo else ("", [])
            found = None
            if self._top is not None:
                found = logprobs.completion(answer.pieces, 0, self._top, 0, prompt)
            choices.append(
                {
                    "index": index,
                    "text": text + answer.text,
                    "logprobs": found,
                    "finish_reason": answer.finish_reason,
                    "stop_reason": answer.stop_reason,
                    "token_ids": [token_id(piece) for piece in answer.pieces] if self.token_ids else None,
                    "prompt_logprobs": None,
                    "prompt_token_ids": self._prompt_ids(index),
                    "routed_experts": None,
                }
            )
        return encode(
            self.head()
            | {"choices": choices, "service_tier": None, "system_fingerprint": FINGERPRINT}
            | self.whole_usage()
            | {"kv_transfer_params": None, "ec_transfer_params": None, "metrics": None}
        )

    def _chunk(self, index: int, step: int, piece: str | None, ends: bool) -> bytes:
        answer = self.answers[index]
        text, prompt = self._prompt(index) if self._echo and step == 0 else ("", [])
        found = None
        if self._top is not None:
            offset = sum(map(len, answer.pieces[:step])) + (len(self._prompt(index)[0]) if self._echo and step else 0)
            found = logprobs.completion([] if piece is None else [piece], step, self._top, offset, prompt)
        choice = {
            "index": index,
            "text": text + (piece or ""),
            "logprobs": found,
            "finish_reason": answer.finish_reason if ends else None,
            "stop_reason": answer.stop_reason if ends else None,
            "prompt_token_ids": self._prompt_ids(index) if step == 0 else None,
            "token_ids": ([] if piece is None else [token_id(piece)]) if self.token_ids else None,
        }
        chunk = self.head() | {"choices": [choice]}
        if self.continuous:
            chunk["usage"] = self.running_usage(index, step + (piece is not None))
        if ends and not self.include_usage:
            chunk["system_fingerprint"] = FINGERPRINT
        return event(encode(chunk))

    def _prompt(self, index: int) -> tuple[str, list[str]]:
        which = index // self.asked.job.n
        return self.asked.texts[which], self.asked.job.prompts[which]

    def _prompt_ids(self, index: int) -> list[int] | None:
        return [token_id(piece) for piece in self._prompt(index)[1]] if self.token_ids else None
