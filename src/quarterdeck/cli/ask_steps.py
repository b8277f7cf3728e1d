"""One question to an agent: model calls and tool calls by turns, until the model answers.

The functions are executed here. Each step sends the whole conversation, so nothing is stored at the platform.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import click
import httpx

from quarterdeck.cli.ask_tools import TOOLS, Json, Tools
from quarterdeck.cli.chat_answer import request_cost
from quarterdeck.cli.client import json_object

MAX_CALLS = 16
"""Calls of one step that are executed."""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call and its result."""

    name: str
    arguments: str
    result: Json

    @property
    def object(self) -> Json:
        return {"name": self.name, "arguments": self.arguments, "result": self.result}


@dataclass(frozen=True, slots=True)
class Step:
    """One model call, with the tool calls that it asked for. `cost`: in dollars; None: not known."""

    number: int
    calls: tuple[Call, ...]
    text: str
    input_tokens: int
    output_tokens: int
    cost: str | None
    seconds: float
    request_id: str

    @property
    def object(self) -> Json:
        return {
            "step": self.number,
            "calls": [call.object for call in self.calls],
            "usage": {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens},
            "cost": self.cost,
            "seconds": round(self.seconds, 3),
            "request_id": self.request_id,
        }


@dataclass(slots=True)
class Agent:
    """`body`: the request without its input. `tool_choice`: of the first step. `has_format`: the prompt wants an answer
    of a form, which is asked for in a step of its own: an engine that is bound to a form calls no tools."""

    client: httpx.Client
    admin_key: str
    tools: Tools
    body: Json
    max_steps: int
    tool_choice: str | None = None
    has_format: bool = False
    shows: Callable[[Step], None] = lambda step: None
    steps: list[Step] = field(default_factory=list)

    def ask(self, question: str) -> str:
        """The answer. Raises ClickException."""
        items: list[Json] = [{"role": "user", "content": question}]
        for number in range(1, self.max_steps + 1):
            is_last = number == self.max_steps
            answer, step = self._step(number, items, "none" if is_last else self.tool_choice if number == 1 else None)
            if not step.calls:
                if self.has_format and not is_last:
                    _, step = self._step(number + 1, items, "none")
                if step.text:
                    return step.text
                raise click.ClickException("the model gave no answer")
            items += [item for item in answer["output"] if item["type"] != "reasoning"]
            outputs = zip(_calls(answer), step.calls, strict=False)
            items += [
                {"type": "function_call_output", "call_id": item["call_id"], "output": json.dumps(call.result)}
                for item, call in outputs
            ]
            if len(_calls(answer)) > len(step.calls):
                raise click.ClickException(f"the model called more than {MAX_CALLS} tools at once")
        raise click.ClickException(f"no answer after {self.max_steps} steps: raise --max-steps, or use a larger model")

    def _step(self, number: int, items: list[Json], choice: str | None) -> tuple[Json, Step]:
        request: Json = {**self.body, "input": items, "tools": list(TOOLS), "store": False}
        if choice is not None:
            named = {"type": "function", "name": choice}
            request["tool_choice"] = choice if choice in ("auto", "none", "required") else named
        if self.has_format and choice != "none":
            request["text"] = {"format": {"type": "text"}}
        started = time.monotonic()
        response = self.client.post("/v1/responses", json=request)
        answer = json_object(response)
        if answer.get("status") == "failed":
            raise click.ClickException(str((answer.get("error") or {}).get("message") or "the response failed"))
        calls = tuple(
            Call(item["name"], item["arguments"], self.tools.call(item["name"], item["arguments"]))
            for item in _calls(answer)[:MAX_CALLS]
        )
        usage = answer.get("usage") or {}
        request_id = response.headers.get("x-request-id", "")
        step = Step(
            number,
            calls,
            "".join(_texts(answer)),
            usage.get("input_tokens", 0),
            usage.get("output_tokens", 0),
            request_cost(self.client, self.admin_key, request_id),
            time.monotonic() - started,
            request_id,
        )
        self.steps.append(step)
        self.shows(step)
        return answer, step


def _calls(answer: Json) -> list[Json]:
    return [item for item in answer["output"] if item["type"] == "function_call"]


def _texts(answer: Json) -> Iterator[str]:
    for item in answer["output"]:
        if item["type"] == "message":
            yield from (str(part.get("text") or part.get("refusal") or "") for part in item["content"])


def totals(steps: list[Step]) -> dict[str, Any]:
    """Tokens and cost of all steps. `cost` is None where that of a step is not known."""
    costs = [step.cost for step in steps]
    return {
        "input_tokens": sum(step.input_tokens for step in steps),
        "output_tokens": sum(step.output_tokens for step in steps),
        "cost": None if None in costs else format(sum(Decimal(cost or "0") for cost in costs), "f"),
    }
