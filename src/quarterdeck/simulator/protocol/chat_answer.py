"""Chat completions as vLLM writes them, whole and as stream events."""

from collections.abc import Iterator
from typing import Any

from msgspec.json import encode

from quarterdeck.simulator.model.tokenizer import token_id
from quarterdeck.simulator.protocol import logprobs
from quarterdeck.simulator.protocol.answers import FINGERPRINT, AnswerContext, BaseAnswerWriter, event
from quarterdeck.simulator.protocol.prepared_request import PreparedRequest
from quarterdeck.simulator.protocol.requests import ChatRequest
from quarterdeck.simulator.protocol.tool_calls import call_id, tool_call_deltas, written_calls


class ChatAnswerWriter(BaseAnswerWriter):
    object = "chat.completion.chunk"

    def __init__(self, request: ChatRequest, prepared: PreparedRequest, context: AnswerContext) -> None:
        super().__init__(request, prepared, context)
        self._top = (request.top_logprobs or 0) if request.logprobs else None
        self._role = "assistant" if request.add_generation_prompt else request.messages[-1]["role"]
        self._only_first = request.parallel_tool_calls is False
        calls = prepared.tool_calls
        self._deltas = [
            list(tool_call_deltas(calls, output.pieces, only_first=self._only_first))
            for output in (self.outputs if calls else ())
        ]
        self._plain = self._top is None and not self._deltas and not self.continuous and not self.token_ids
        start = event(encode(self.head() | {"choices": []}))[: -len(b"]}\n\n")]
        self._prefixes = [start + b'{"index":%d,"delta":{"content":' % index for index in range(len(self.outputs))]

    def opening(self) -> bytes:
        events = []
        for index in range(len(self.outputs)):
            choice = {
                "index": index,
                "delta": {"role": self._role, "content": ""},
                "logprobs": None,
                "finish_reason": None,
            }
            prompt = [token_id(piece) for piece in self.prepared.engine_request.prompts[0]] if self.token_ids else None
            chunk = self.head() | {"choices": [choice], "prompt_token_ids": prompt, "prompt_text": None}
            if self.continuous:
                chunk["usage"] = self.running_usage(index, 0)
            events.append(event(encode(chunk)))
        return b"".join(events)

    def token(self, index: int, step: int) -> Iterator[bytes]:
        output = self.outputs[index]
        last = step == len(output.pieces) - 1
        with_end = last and (output.finish_reason == "length" or output.stop_reason is not None)
        if self._plain and not with_end:
            content = encode(output.pieces[step])
            yield self._prefixes[index] + content + b'},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n'
        else:
            yield from self._choice(index, step, with_end)
        if last and not with_end:
            yield self.end(index)

    def end(self, index: int) -> bytes:
        delta: dict[str, Any] = {} if self._deltas else {"content": ""}
        choice = {"index": index, "delta": delta, "logprobs": None}
        return self._chunk(index, choice | self._ending(index), len(self.outputs[index].pieces), None)

    def whole(self) -> bytes:
        choices = []
        for index, output in enumerate(self.outputs):
            choices.append(
                {
                    "index": index,
                    "message": self._message(index),
                    "logprobs": None if self._top is None else logprobs.chat(output.pieces, 0, self._top),
                    "finish_reason": self._finish_reason(index),
                    "stop_reason": output.stop_reason,
                    "token_ids": [token_id(piece) for piece in output.pieces] if self.token_ids else None,
                    "routed_experts": None,
                }
            )
        prompt = [token_id(piece) for piece in self.prepared.engine_request.prompts[0]] if self.token_ids else None
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
        output = self.outputs[index]
        piece = output.pieces[step]
        delta: dict[str, Any] = {"content": piece}
        if self._deltas:
            said = self._deltas[index][step]
            if not said and not with_end:
                return
            delta = {"tool_calls": said} if said else {}
        found = None if self._top is None else logprobs.chat([piece], step, self._top)
        choice = {"index": index, "delta": delta, "logprobs": found}
        ending = self._ending(index) if with_end else {"finish_reason": None}
        yield self._chunk(index, choice | ending, step + 1, [token_id(piece)])

    def _ending(self, index: int) -> dict[str, Any]:
        return {"finish_reason": self._finish_reason(index), "stop_reason": self.outputs[index].stop_reason}

    def _chunk(self, index: int, choice: dict[str, Any], done: int, tokens: list[int] | None) -> bytes:
        choice["token_ids"] = tokens if self.token_ids else None
        chunk = self.head() | {"choices": [choice]}
        if self.continuous:
            chunk["usage"] = self.running_usage(index, done)
        if choice["finish_reason"] is not None and not self.include_usage:
            chunk["system_fingerprint"] = FINGERPRINT
        return event(encode(chunk))

    def _finish_reason(self, index: int) -> str:
        output = self.outputs[index]
        calls = self.prepared.tool_calls
        if calls and output.finish_reason == "stop" and output.stop_reason is None:
            return calls[0].finish_reason
        return output.finish_reason

    def _message(self, index: int) -> dict[str, Any]:
        output, wanted = self.outputs[index], self.prepared.tool_calls
        calls: list[dict[str, Any]] = []
        content: str | None = output.text
        if wanted:
            head = wanted[0].head
            content = "" if head.startswith("[") or not head else None
            if output.finish_reason == "stop" or not head:
                for each in written_calls(wanted, output.text)[: 1 if self._only_first else None]:
                    function = {"name": each.call.name, "arguments": output.text[each.begin : each.end]}
                    calls.append({"id": call_id(), "type": "function", "function": function})
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
