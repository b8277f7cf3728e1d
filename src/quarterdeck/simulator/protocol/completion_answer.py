"""Text completions as vLLM writes them, whole and as stream events."""

from collections.abc import Iterator

from msgspec.json import encode

from quarterdeck.simulator.model.tokenizer import token_id
from quarterdeck.simulator.protocol import logprobs
from quarterdeck.simulator.protocol.answers import FINGERPRINT, AnswerContext, BaseAnswerWriter, event
from quarterdeck.simulator.protocol.prepared_request import PreparedRequest
from quarterdeck.simulator.protocol.requests import CompletionRequest


class CompletionAnswerWriter(BaseAnswerWriter):
    object = "text_completion"

    def __init__(self, request: CompletionRequest, prepared: PreparedRequest, context: AnswerContext) -> None:
        super().__init__(request, prepared, context)
        self._echo = bool(request.echo)
        self._top = request.logprobs

    def opening(self) -> bytes:
        return b""

    def token(self, index: int, step: int) -> Iterator[bytes]:
        output = self.outputs[index]
        last = step == len(output.pieces) - 1
        with_end = last and (output.finish_reason == "length" or output.stop_reason is not None)
        yield self._chunk(index, step, output.pieces[step], with_end)
        if last and not with_end:
            yield self.end(index)

    def end(self, index: int) -> bytes:
        return self._chunk(index, len(self.outputs[index].pieces), None, True)

    def whole(self) -> bytes:
        choices = []
        for index, output in enumerate(self.outputs):
            text, prompt = self._prompt(index) if self._echo else ("", [])
            found = None
            if self._top is not None:
                found = logprobs.completion(output.pieces, 0, self._top, 0, prompt)
            choices.append(
                {
                    "index": index,
                    "text": text + output.text,
                    "logprobs": found,
                    "finish_reason": output.finish_reason,
                    "stop_reason": output.stop_reason,
                    "token_ids": [token_id(piece) for piece in output.pieces] if self.token_ids else None,
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
        output = self.outputs[index]
        text, prompt = self._prompt(index) if self._echo and step == 0 else ("", [])
        found = None
        if self._top is not None:
            offset = sum(map(len, output.pieces[:step])) + (len(self._prompt(index)[0]) if self._echo and step else 0)
            found = logprobs.completion([] if piece is None else [piece], step, self._top, offset, prompt)
        choice = {
            "index": index,
            "text": text + (piece or ""),
            "logprobs": found,
            "finish_reason": output.finish_reason if ends else None,
            "stop_reason": output.stop_reason if ends else None,
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
        which = index // self.prepared.engine_request.n
        return self.prepared.texts[which], self.prepared.engine_request.prompts[which]

    def _prompt_ids(self, index: int) -> list[int] | None:
        return [token_id(piece) for piece in self._prompt(index)[1]] if self.token_ids else None
