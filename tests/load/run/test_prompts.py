"""Request bodies: reproducible by seed, conversations and repeats."""

import json
from typing import Any

from quarterdeck.load.run.arrivals import Arrival
from quarterdeck.load.run.profile import make
from quarterdeck.load.run.prompts import Prompts

SCENARIOS: dict[str, Any] = {
    name: {} for name in ("chat", "stream", "session", "embeddings", "rag", "tools", "repeat", "disconnect", "bad_key")
}


def prompts(**values: Any) -> Prompts:
    return Prompts(make({"scenarios": SCENARIOS, **values}, "test"), "llm", "embedder")


def body(made: Prompts, scenario: str, index: int = 0, **values: Any) -> dict[str, Any]:
    request, _ = made.request(Arrival(index, 0.0, 1.0, scenario, **values))
    value: dict[str, Any] = json.loads(request.body)
    return value


def test_the_same_seed_and_index_ask_the_same_and_others_do_not() -> None:
    assert body(prompts(), "stream", 3) == body(prompts(), "stream", 3)
    assert body(prompts(), "stream", 3) != body(prompts(), "stream", 4)
    assert body(prompts(), "stream", 3) != body(prompts(seed=2), "stream", 3)


def test_repeats_are_few_and_deterministic_and_nothing_else_is_at_temperature_0() -> None:
    made = prompts()
    asked = {json.dumps(body(made, "repeat", index)) for index in range(200)}
    assert len(asked) == 8
    assert body(made, "repeat")["temperature"] == 0
    assert body(made, "chat")["temperature"] > 0


def test_a_trace_row_says_how_long_a_prompt_and_its_answer_are() -> None:
    asked = body(prompts(), "stream", input_tokens=7, max_tokens=9)
    assert len(asked["messages"][0]["content"].split()) == 7
    assert asked["max_tokens"] == 9


def test_streams_ask_for_usage_and_embeddings_go_to_the_embedding_model() -> None:
    made = prompts(extra_body={"ignore_eos": True})
    asked = body(made, "stream")
    assert (asked["stream"], asked["stream_options"], asked["ignore_eos"]) == (True, {"include_usage": True}, True)
    embedded = body(made, "embeddings")
    assert (embedded["model"], len(embedded["input"])) == ("embedder", 4)


def test_a_conversation_goes_on_with_its_answers_until_its_turns_are_over() -> None:
    made = prompts()
    lengths = []
    for index in range(5):
        request, conversation = made.request(Arrival(index, 0.0, 1.0, "session"))
        messages = json.loads(request.body)["messages"]
        lengths.append(len(messages))
        assert messages[0]["role"] == "system"
        assert conversation is not None
        made.conversations.answered(conversation, "so it is")
    assert lengths == [2, 4, 6, 8, 2]


def test_conversations_share_their_system_prompts() -> None:
    made = prompts()
    asked = [json.loads(made.request(Arrival(index, 0.0, 1.0, "session"))[0].body)["messages"] for index in range(60)]
    assert len({messages[0]["content"] for messages in asked}) == 4  # none was answered: 60 conversations, 4 prefixes
