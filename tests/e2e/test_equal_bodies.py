"""The gateway returns the body that vLLM returns for the same request, except for ids and times."""

import json
from typing import Any

import httpx
import pytest
from tests.e2e.stack import CHAT, EMBED, Stack
from tests.e2e.test_answers import QUESTION, SCHEMA, TOOL

SYSTEM = {"role": "system", "content": "You are a helpful harbour master."}
TURNS = [*QUESTION, {"role": "assistant", "content": "Paris."}, {"role": "user", "content": "And of Norway?"}]


def chat(**fields: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/chat/completions", {"model": CHAT, "messages": QUESTION, "max_tokens": 8, "temperature": 0, **fields}


def text(**fields: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/completions", {"model": CHAT, "prompt": "One, two,", "max_tokens": 8, "temperature": 0, **fields}


def embed(**fields: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/embeddings", {"model": EMBED, "input": "a ship", **fields}


SHAPES = {
    "plain": chat(),
    "system": chat(messages=[SYSTEM, *QUESTION]),
    "turns": chat(messages=TURNS),
    "content parts": chat(messages=[{"role": "user", "content": [{"type": "text", "text": "Hello there."}]}]),
    "max_completion_tokens": chat(max_tokens=None, max_completion_tokens=6),
    "seed": chat(temperature=1, seed=3),
    "top_p": chat(temperature=0.7, top_p=0.5, seed=4),
    "top_k": chat(temperature=0.7, top_k=5, seed=5),
    "min_p": chat(temperature=0.7, min_p=0.2, seed=6),
    "n": chat(n=2, temperature=1, seed=7),
    "stop": chat(stop=["Paris"], max_tokens=20),
    "stops": chat(stop=[".", "!"], max_tokens=20),
    "frequency penalty": chat(frequency_penalty=1.0, max_tokens=16),
    "presence penalty": chat(presence_penalty=1.0, max_tokens=16),
    "repetition penalty": chat(repetition_penalty=1.2, max_tokens=16),
    "logit bias": chat(logit_bias={"10": 5.0}),
    "logprobs": chat(logprobs=True, top_logprobs=2, max_tokens=4),
    "json object": chat(response_format={"type": "json_object"}, max_tokens=30),
    "json schema": chat(
        response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}, max_tokens=60
    ),
    "tool required": chat(tools=[TOOL], tool_choice="required", max_tokens=80),
    "tool none": chat(tools=[TOOL], tool_choice="none"),
    "ignore_eos": chat(ignore_eos=True, max_tokens=24),
    "continue": chat(
        messages=[*QUESTION, {"role": "assistant", "content": "The capital of"}],
        continue_final_message=True,
        add_generation_prompt=False,
    ),
    "user and metadata": chat(user="u-1", metadata={"session_id": "s-1"}),
    "stream": chat(stream=True, stream_options={"include_usage": True}),
    "stream of n": chat(stream=True, n=2, temperature=1, seed=8, stream_options={"include_usage": True}),
    "completion": text(),
    "completions": text(prompt=["One, two,", "A, b,"]),
    "completion of tokens": text(prompt=[504, 338, 28]),
    "echo": text(echo=True, logprobs=1, max_tokens=3),
    "completion stream": text(stream=True, stream_options={"include_usage": True}),
    "embedding": embed(),
    "embeddings": embed(input=["a ship", "a harbour"]),
    "base64": embed(encoding_format="base64"),
    "tokenize": ("/tokenize", {"model": CHAT, "prompt": "a ship"}),
    "tokenize chat": ("/tokenize", {"model": CHAT, "messages": QUESTION}),
    "detokenize": ("/detokenize", {"model": CHAT, "tokens": [504, 338, 28]}),
    "score": ("/v1/score", {"model": EMBED, "text_1": "a ship", "text_2": ["a boat", "a tree"]}),
}


def without_ids(value: Any) -> Any:
    """Remove ids and times at any depth."""
    if isinstance(value, dict):
        return {k: without_ids(v) for k, v in value.items() if k not in ("id", "created", "request_id")}
    return [without_ids(item) for item in value] if isinstance(value, list) else value


def folded(answer: httpx.Response) -> Any:
    """Return a body without ids; for a stream, texts and finish reasons by choice, and usage.

    The number of tokens per event varies.
    """
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return without_ids(answer.json())
    assert answer.text.endswith("data: [DONE]\n\n")
    lines = [line[6:] for line in answer.text.split("\n") if line.startswith("data: {")]
    chunks = [json.loads(line) for line in lines]
    texts: dict[int, str] = {}
    ends: dict[int, str] = {}
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        said = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
        texts[choice["index"]] = texts.get(choice["index"], "") + said
        if choice.get("finish_reason"):
            ends[choice["index"]] = choice["finish_reason"]
    return texts, ends, [chunk["usage"] for chunk in chunks if chunk.get("usage")]


@pytest.mark.parametrize("name", SHAPES)
def test_the_gateway_changes_nothing(platform: Stack, name: str) -> None:
    path, body = SHAPES[name]
    body = {key: value for key, value in body.items() if value is not None}
    replica = platform.replica(body["model"])
    with platform.http() as http:
        # Warm-up: the prefix cache is then in the same state for both.
        first = httpx.post(replica + path, json=body, timeout=300, trust_env=False)
        assert first.status_code == 200, first.text
        direct = httpx.post(replica + path, json=body, timeout=300, trust_env=False)
        through = http.post(path, json=body)
    assert through.status_code == 200, through.text
    assert folded(through) == folded(direct)
