"""Real answers, cut after every token: the continuation starts from the tokens that the first engine had.

An engine at temperature 0 then goes on as the first one would have. No engine runs: the answers are recorded
(loadtests/resume_answers.py), and the tokenizer is the model's own.
"""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.e2e.stack import CHAT, CHECKOUT, ENGINE_PYTHON

from quarterdeck.errors import EngineError
from quarterdeck.inference.streaming.resume import MAX_REPEATED, LostStream, plan_continuations
from quarterdeck.protocol import requests
from quarterdeck.settings.environment import Environment

ANSWERS = json.loads((CHECKOUT / "loadtests" / "resume_answers.json").read_text())
GREEDY = [answer for answer in ANSWERS if answer["temperature"] == 0]
SAMPLED = [answer for answer in ANSWERS if answer["temperature"] == 1]
INCOMPLETE = "\ufffd"
"""Part of a character; a stream holds it back until the next token."""


class Tokenizer:
    """The engine client's `tokenize`, by the model's tokenizer in a process of the engine's environment."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._known: dict[str, Any] = {}

    def ask(self, asked: object) -> Any:
        line = msgspec.json.encode(asked).decode()
        if line not in self._known:
            assert self._process.stdin and self._process.stdout
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            self._known[line] = json.loads(self._process.stdout.readline())
        return self._known[line]

    async def tokenize(self, endpoint: object, body: dict[str, object]) -> list[int]:
        found: list[int] = self.ask({name: value for name, value in body.items() if name != "model"})
        return found

    def text(self, tokens: list[int]) -> str:
        return str(self.ask({"tokens": tokens})).rstrip(INCOMPLETE)


@pytest.fixture(scope="module")
def tokenizer() -> Iterator[Tokenizer]:
    assert ENGINE_PYTHON.exists(), "the engine's environment is missing: make setup"
    folder = Environment.read().cache / "models" / CHAT
    assert (folder / "tokenizer.json").exists(), "the packaged model is missing: make setup"
    script = Path(__file__).with_name("real_tokenizer.py")
    with subprocess.Popen(
        [ENGINE_PYTHON, script, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin", "TOKENIZERS_PARALLELISM": "false"},
    ) as process:
        yield Tokenizer(process)
        assert process.stdin
        process.stdin.close()


@dataclass(frozen=True)
class Cut:
    text: str
    repeated: str
    is_exact: bool
    """The new prompt's tokens are those of the old prompt and of the answer's beginning."""
    has_own_tokens: bool
    """The text has the tokens that the engine generated. Rarely a model spells a word with other tokens."""


async def cuts(tokenizer: Tokenizer, asked: dict[str, Any], tokens: list[int]) -> list[Cut]:
    body = msgspec.json.encode({"model": "m", "temperature": 0, "max_tokens": 500} | asked)
    kind = requests.ChatCompletionRequest if "messages" in asked else requests.CompletionRequest
    members, request = requests.members(body), requests.decode(body, kind)
    prompt = tokenizer.ask(asked)
    own = tokenizer.ask({"prompt": tokenizer.ask({"tokens": tokens})})
    has_own_tokens = own == tokens
    found = []
    for at in range(1, len(tokens) + 1):
        text = tokenizer.text(tokens[:at])
        lost = LostStream(EngineError("lost"), text, tokens=at)
        engines: Any = tokenizer
        endpoint: Any = None
        plan = (await plan_continuations(engines, endpoint, "m", members, request, lost))[0]
        changed = msgspec.json.decode(plan.body)
        fields = ("messages", "prompt", "continue_final_message", "add_generation_prompt")
        continued = tokenizer.ask({name: changed[name] for name in fields if name in changed})
        assert plan.tokens == len(continued) - len(prompt)
        assert changed["max_tokens"] == 500 - plan.tokens
        if changed.get("continue_final_message"):
            kept = changed["messages"][-1]["content"]
        else:
            kept = changed.get("prompt", "").removeprefix(asked.get("prompt", ""))
        assert kept + plan.repeated == text
        is_exact = [*prompt, *tokens][: len(continued)] == continued
        found.append(Cut(text, plan.repeated, is_exact, has_own_tokens))
    return found


def asked_by(answer: dict[str, Any], kind: str) -> dict[str, Any]:
    if kind == "chat":
        return {"messages": [{"role": "user", "content": answer["prompt"]}]}
    return {"prompt": answer["prompt"] + "\n"}


@pytest.mark.parametrize("kind", ["chat", "completion"])
async def test_fifty_answers_go_on_from_the_same_tokens_wherever_they_are_cut(tokenizer: Tokenizer, kind: str) -> None:
    assert len(GREEDY) == 50
    found = [await cuts(tokenizer, asked_by(answer, kind), answer["tokens"]) for answer in GREEDY]
    assert sum(map(len, found)) > 2500
    assert [cut for answer in found for cut in answer if cut.has_own_tokens and not cut.is_exact] == []
    assert max(len(cut.repeated) for answer in found for cut in answer) <= MAX_REPEATED
    # Text can't carry tokens that differ from its own: from such a token on, the answer goes on from equal text.
    others = [answer for answer in found if not answer[-1].has_own_tokens]
    assert len(others) <= 1
    for answer in others:
        exact = [cut.is_exact for cut in answer]
        assert exact == sorted(exact, reverse=True)


async def test_sampled_answers_keep_their_text_wherever_they_are_cut(tokenizer: Tokenizer) -> None:
    found = [cut for answer in SAMPLED for cut in await cuts(tokenizer, asked_by(answer, "chat"), answer["tokens"])]
    assert len(found) > 1000
    assert [cut for cut in found if cut.has_own_tokens and not cut.is_exact] == []
