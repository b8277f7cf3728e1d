"""Offline runs on Ray with vLLM: chats and embeddings, without a platform."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.stack import CHAT, CHECKOUT, EMBED, Stacks

CONFIG = f"""
models:
  - name: {CHAT}
    engine: {{source: "packaged:{CHAT}", context: 1024}}
  - name: {EMBED}
    engine: {{source: "packaged:{EMBED}", task: embed}}
"""

pytestmark = pytest.mark.long  # Ray and an engine start for each


def execute(
    folder: Path, endpoint: str, bodies: Sequence[dict[str, Any]]
) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """The exit code, and the lines of both files by custom id."""
    source = folder / "in.jsonl"
    lines = [{"custom_id": f"{at}", "method": "POST", "url": endpoint, "body": body} for at, body in enumerate(bodies)]
    source.write_text("\n".join(map(json.dumps, lines)))
    (folder / "quarterdeck.yaml").write_text(CONFIG)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("QUARTERDECK_")}
    environ |= {
        "QUARTERDECK_STATE": str(folder / "state"),
        "QUARTERDECK_CONFIG": str(folder / "quarterdeck.yaml"),
    }
    command = [sys.executable, "-m", "quarterdeck.cli", "batch", "run", str(source), "--ray", "--endpoint", endpoint]
    done = subprocess.run(command, env=environ, cwd=CHECKOUT, capture_output=True, text=True, timeout=1000)
    found: list[dict[str, Any]] = []
    for name in ("in.output.jsonl", "in.errors.jsonl"):
        path = folder / name
        texts = path.read_text().splitlines() if path.exists() else []
        found.append({line["custom_id"]: line for line in map(json.loads, texts)})
    assert len(found[0]) + len(found[1]) == len(bodies), done.stderr
    return done.returncode, found[0], found[1]


def test_chats_are_answered_and_a_wrong_one_is_an_error(running: Stacks, tmp_path: Path) -> None:
    running.stop()  # two would be more than a small machine holds
    chat = {"model": CHAT, "messages": [{"role": "user", "content": "Count to three."}], "max_tokens": 8}
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    shaped = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}
    bodies: list[dict[str, Any]] = [chat | {"temperature": 0} for _ in range(4)]
    bodies += [chat | {"response_format": shaped, "max_tokens": 40}, chat | {"temperature": 99}]
    status, output, errors = execute(tmp_path, "/v1/chat/completions", bodies)
    assert (status, set(errors)) == (1, {"5"})
    assert errors["5"]["response"]["status_code"] == 400
    answers = [output[f"{at}"]["response"]["body"] for at in range(5)]
    assert len({each["choices"][0]["message"]["content"] for each in answers[:4]}) == 1
    assert all(each["model"] == CHAT and each["usage"]["completion_tokens"] > 0 for each in answers)
    text = answers[4]["choices"][0]["message"]["content"]
    assert answers[4]["choices"][0]["finish_reason"] == "length" or isinstance(json.loads(text)["n"], int)


def test_embeddings_are_computed(running: Stacks, tmp_path: Path) -> None:
    running.stop()
    bodies = [{"model": EMBED, "input": text} for text in ("a cat", "a cat", "the stock market")]
    status, output, _ = execute(tmp_path, "/v1/embeddings", bodies)
    vectors = [output[f"{at}"]["response"]["body"]["data"][0]["embedding"] for at in range(3)]
    assert status == 0 and [len(each) for each in vectors] == [384] * 3
    assert vectors[0] == pytest.approx(vectors[1], abs=1e-3) and vectors[0] != pytest.approx(vectors[2], abs=0.1)
