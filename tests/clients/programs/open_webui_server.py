"""Open WebUI's server, driven over its own API as its page in a browser does. Its embeddings are the platform's."""

import atexit
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from reporting import CHAT_MODEL, EMBEDDING_MODEL, report

folder = tempfile.mkdtemp()
base, key = os.environ["OPENAI_BASE_URL"], os.environ["OPENAI_API_KEY"]
settings = {
    "DATA_DIR": folder,
    "WEBUI_SECRET_KEY": "x",
    "ENABLE_OLLAMA_API": "false",
    "OPENAI_API_BASE_URL": base,
    "OPENAI_API_KEY": key,
    "RAG_EMBEDDING_ENGINE": "openai",
    "RAG_EMBEDDING_MODEL": EMBEDDING_MODEL,
    "RAG_OPENAI_API_BASE_URL": base,
    "RAG_OPENAI_API_KEY": key,
    "OFFLINE_MODE": "true",
    "HF_HUB_OFFLINE": "1",
    "ANONYMIZED_TELEMETRY": "false",
    "DO_NOT_TRACK": "true",
}
ASK = {"model": CHAT_MODEL, "messages": [{"role": "user", "content": "Hello!"}]}
SECRET = "The secret word of the project is heron."


def start():
    """A client that is signed in. The server ends with this program."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("open-webui")
    with (Path(folder) / "server.log").open("wb") as log:
        words = [program, "serve", "--host", "127.0.0.1", "--port", str(port)]
        server = subprocess.Popen(words, env={**os.environ, **settings}, cwd=folder, stdout=log, stderr=log)
    atexit.register(server.kill)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120)
    until(lambda: is_healthy(client) or server.poll() is not None)
    assert server.poll() is None, (Path(folder) / "server.log").read_text()[-4000:]
    user = {"name": "a", "email": "a@example.com", "password": "secret-12345"}
    token = client.post("/api/v1/auths/signup", json=user).raise_for_status().json()["token"]
    client.headers["authorization"] = f"Bearer {token}"
    return client


def is_healthy(client):
    try:
        return client.get("/health").status_code == 200
    except httpx.HTTPError:
        return False


def until(is_true):
    deadline = time.monotonic() + 240
    while not is_true():
        assert time.monotonic() < deadline, (Path(folder) / "server.log").read_text()[-4000:]
        time.sleep(0.5)


def chat():
    assert CHAT_MODEL in [model["id"] for model in webui.get("/api/models").json()["data"]]
    answer = webui.post("/api/chat/completions", json={**ASK, "stream": False}).raise_for_status().json()
    assert answer["choices"][0]["message"]["content"]


def stream():
    with webui.stream("POST", "/api/chat/completions", json={**ASK, "stream": True}) as response:
        lines = [line for line in response.iter_lines() if line]
    assert len(lines) > 2
    assert lines[-1] == "data: [DONE]", lines[-1]


def embeddings():
    """A document is cut, embedded by the platform, and found for a question about it."""
    file = {"file": ("notes.txt", SECRET.encode(), "text/plain")}
    identity = webui.post("/api/v1/files/", files=file).raise_for_status().json()["id"]
    path = f"/api/v1/files/{identity}/process/status"
    until(lambda: webui.get(path).json()["status"] in ("completed", "failed"))
    asked = {**ASK, "stream": False, "files": [{"type": "file", "id": identity}]}
    answer = webui.post("/api/chat/completions", json=asked).raise_for_status().json()
    assert SECRET in answer["sources"][0]["document"], answer


webui = start()
report("open-webui", chat=chat, stream=stream, embeddings=embeddings)
