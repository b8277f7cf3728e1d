import os
import subprocess
import sys
import tempfile

from reporting import CHAT_MODEL, report


def aider(model, *words):
    environ = {**os.environ, "OPENAI_API_BASE": os.environ["OPENAI_BASE_URL"], "HOME": tempfile.mkdtemp()}
    quiet = (
        "--no-git",
        "--yes-always",
        "--no-check-update",
        "--no-show-model-warnings",
        "--no-pretty",
        "--analytics-disable",
    )
    command = [sys.executable, "-m", "aider", "--model", f"openai/{model}", *quiet, "--message", "Hello!", *words]
    done = subprocess.run(
        command, env=environ, cwd=tempfile.mkdtemp(), capture_output=True, text=True, timeout=200, check=False
    )
    return done.stdout + done.stderr


def chat():
    words = aider(CHAT_MODEL, "--no-stream")
    assert "Tokens:" in words, words


def stream():
    words = aider(CHAT_MODEL)
    assert "Tokens:" in words, words


def errors():
    words = aider("nope")
    assert "does not exist" in words, words


report("aider-chat", chat=chat, stream=stream, errors=errors)
