import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from reporting import CHAT_MODEL, SCHEMA, report

folder = Path(tempfile.mkdtemp())
base = os.environ["OPENAI_BASE_URL"]
where = {"api_base": base, "api_key_name": "quarterdeck"}
entry = {"model_id": "quarterdeck", "model_name": CHAT_MODEL, "supports_schema": True, "supports_tools": True, **where}
wrong = {"model_id": "wrong", "model_name": "nope", **where}
(folder / "extra-openai-models.yaml").write_text(json.dumps([entry, wrong]))  # JSON is YAML


def llm(*words):
    environ = {**os.environ, "LLM_USER_PATH": str(folder)}
    command = [sys.executable, "-m", "llm", *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


llm("keys", "set", "quarterdeck", "--value", os.environ["OPENAI_API_KEY"])


def chat():
    done = llm("-m", "quarterdeck", "--no-stream", "Hello!")
    assert done.stdout.strip(), done.stderr


def stream():
    done = llm("-m", "quarterdeck", "Hello!")
    assert done.stdout.strip(), done.stderr


def tools():
    done = llm("-m", "quarterdeck", "--td", "-T", "llm_version", "Call llm_version.")
    assert "llm_version" in done.stderr, done.stderr


def json_schema():
    done = llm("-m", "quarterdeck", "--schema", json.dumps(SCHEMA), "Paris")
    assert set(json.loads(done.stdout)) == {"name", "population"}, done.stderr


def errors():
    done = llm("-m", "wrong", "Hello!")
    assert done.returncode != 0
    assert "does not exist" in done.stderr, done.stderr


report("llm", chat=chat, stream=stream, tools=tools, json_schema=json_schema, errors=errors)
