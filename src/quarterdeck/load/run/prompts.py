"""Builds request bodies from a profile. Pure; equal seeds and indexes give equal bodies.

The text has no meaning. Each word is about one token, in most tokenizers and in the simulated engine's.
"""

import json
import random
from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from quarterdeck.load.run.arrivals import Arrival
from quarterdeck.load.run.profile import Embeddings, Profile, Rag, Repeat, Scenario, Session, Tools

_TEXT = """
the of and a to in is you that it he was for on are as with his they I at be this have from or one had by word but not
what all were we when your can said there use an each which she do how their if will up other about out many then them
these so some her would make like him into time has look two more go see no way could my than first been call who oil
its now find long down day did get come made may part over new sound take only work know place year live me back give
most very after thing our just name good man think say great where help much before line right too mean old any same
tell boy came want show also form small set put end does well large must big even such turn here why ask went men read
need land move try kind hand again off play spell air away house point page near
"""
WORDS = tuple(_TEXT.split())
TEMPERATURE = 0.7
"""Above 0, so that exact-match caches answer only the `repeat` scenario."""
TOOLS: tuple[dict[str, Any], ...] = (
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["c", "f"]}},
                "required": ["city"],
            },
        },
    },
)
STREAMED = frozenset({"stream", "session", "rag", "disconnect", "slow_reader"})

Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class PromptRequest:
    """A request ready to be sent."""

    path: str
    """Relative to the base URL."""
    body: bytes
    is_streamed: bool


@dataclass(slots=True)
class Conversation:
    """Messages and number of completed turns; a turn ends with the model's answer."""

    messages: list[Message]
    turns: int = 0


@dataclass
class Conversations:
    """Conversations that wait for their next turn."""

    turns: int
    waiting: deque[Conversation] = field(default_factory=deque)

    def next(self, system: str, question: str) -> Conversation:
        held = self.waiting.popleft() if self.waiting else Conversation([{"role": "system", "content": system}])
        held.messages.append({"role": "user", "content": question})
        return held

    def answered(self, conversation: Conversation, answer: str) -> None:
        """Complete the turn; drop the conversation after its last one."""
        conversation.messages.append({"role": "assistant", "content": answer})
        conversation.turns += 1
        if conversation.turns < self.turns:
            self.waiting.append(conversation)


class Prompts:
    """Builds the requests of one profile for one target."""

    def __init__(self, profile: Profile, model: str, embedding_model: str | None) -> None:
        self._profile = profile
        self._scenarios = profile.scenarios.chosen
        self._model = model
        self._embedding_model = embedding_model or model
        session = profile.scenarios.session
        self.conversations = Conversations(session.turns if session else 1)

    def request(self, arrival: Arrival) -> tuple[PromptRequest, Conversation | None]:
        """The arrival's request, and its conversation if it is a turn of one."""
        scenario = self._scenarios[arrival.scenario]
        draw = random.Random(f"{self._profile.seed}/{arrival.index}/prompt")  # noqa: S311  # must be repeatable
        length = arrival.input_tokens or scenario.input_tokens
        if isinstance(scenario, Embeddings):
            texts = [words(draw, length) for _ in range(scenario.inputs)]
            body = {"model": self._embedding_model, "input": texts}
            return PromptRequest("/embeddings", json.dumps(body).encode(), is_streamed=False), None
        conversation = None
        if isinstance(scenario, Session):
            system = words(self._fixed("system", draw.randrange(scenario.systems)), scenario.system_tokens)
            conversation = self.conversations.next(system, words(draw, length))
            messages = conversation.messages
        elif isinstance(scenario, Rag):
            messages = [{"role": "user", "content": self._rag(scenario, draw, length)}]
        elif isinstance(scenario, Repeat):
            draw = self._fixed("repeat", draw.randrange(scenario.prompts))
            messages = [{"role": "user", "content": words(draw, length)}]
        else:
            messages = [{"role": "user", "content": words(draw, length)}]
        return self._chat(arrival, scenario, messages), conversation

    def _chat(self, arrival: Arrival, scenario: Scenario, messages: list[Message]) -> PromptRequest:
        is_streamed = arrival.scenario in STREAMED
        body: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            "max_tokens": arrival.max_tokens or scenario.max_tokens,
            "temperature": 0 if isinstance(scenario, Repeat) else TEMPERATURE,
            **self._profile.extra_body,
        }
        if is_streamed:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        if isinstance(scenario, Tools):
            body |= {"tools": TOOLS, "tool_choice": scenario.tool_choice}
            body.pop("ignore_eos", None)  # a tool call ends with its arguments
        return PromptRequest("/chat/completions", json.dumps(body).encode(), is_streamed)

    def _fixed(self, what: str, which: int) -> random.Random:
        return random.Random(f"{self._profile.seed}/{what}/{which}")  # noqa: S311

    def _rag(self, scenario: Rag, draw: random.Random, length: int) -> str:
        # Popularity falls with rank: document n is chosen with a probability like 1/n.
        ranks = [min(int(scenario.documents ** draw.random()), scenario.documents) - 1 for _ in range(scenario.chosen)]
        texts = (_document(self._profile.seed, rank, scenario.document_tokens) for rank in dict.fromkeys(ranks))
        return "\n\n".join((*texts, words(draw, length)))


def words(draw: random.Random, tokens: int) -> str:
    """Text of about `tokens` tokens."""
    return " ".join(draw.choices(WORDS, k=tokens))


@lru_cache(maxsize=1024)
def _document(seed: int, rank: int, tokens: int) -> str:
    return words(random.Random(f"{seed}/document/{rank}"), tokens)  # noqa: S311
