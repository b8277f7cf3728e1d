"""The clients of other projects that the tests run, their environments and what each can do."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).with_name("programs")
NODE = {"node": ROOT / "environments/clients/node", "node-continue": ROOT / "environments/clients/continue"}
FEATURES = ("chat", "stream", "tools", "json_schema", "embeddings", "errors", "cancel")
MOST = frozenset(FEATURES)


@dataclass(frozen=True, slots=True)
class Client:
    """One client. `offers`: the features that it has, all of which have to work."""

    title: str
    guide: str | None
    """Its page, below docs/guides."""
    environment: str
    """A recipe of environments/make.py, of NODE, or `java`."""
    program: str
    offers: frozenset[str] = MOST


CLIENTS = {
    "openai-python": Client("OpenAI SDK, Python", "openai-python.md", "core", "openai_python.py"),
    "openai-old": Client(
        "OpenAI SDK, Python, of 2024", "openai-python.md", "client-openai-old", "openai_old.py", MOST - {"json_schema"}
    ),
    "openai-node": Client("OpenAI SDK, Node", "openai-node.md", "node", "openai_node.mjs"),
    "langchain": Client("LangChain", "langchain.md", "client-langchain", "langchain_chains.py"),
    "llamaindex": Client("LlamaIndex", "llamaindex.md", "client-llamaindex", "llamaindex.py"),
    "vercel-ai": Client("Vercel AI SDK", "vercel-ai.md", "node", "vercel_ai.mjs"),
    "pydantic-ai": Client("Pydantic AI", "pydantic-ai.md", "client-pydantic-ai", "pydantic_agents.py"),
    "openai-agents": Client(
        "OpenAI Agents SDK",
        "openai-agents.md",
        "client-openai-agents",
        "openai_agents.py",
        MOST - {"embeddings", "cancel"},
    ),
    "instructor": Client(
        "instructor",
        "instructor.md",
        "client-instructor",
        "instructor_models.py",
        MOST - {"chat", "embeddings", "cancel"},
    ),
    "dspy": Client("DSPy", "dspy.md", "client-dspy", "dspy_programs.py", MOST - {"tools", "cancel"}),
    "haystack": Client("Haystack", "haystack.md", "client-haystack", "haystack_pipelines.py", MOST - {"cancel"}),
    "litellm": Client("LiteLLM SDK", "litellm.md", "client-litellm", "litellm_sdk.py"),
    "llm": Client("llm", "llm.md", "client-llm", "llm_command.py", MOST - {"embeddings", "cancel"}),
    "aider": Client("aider", "aider.md", "client-aider", "aider_command.py", frozenset({"chat", "stream", "errors"})),
    "continue": Client(
        "Continue", "continue.md", "node-continue", "continue_command.mjs", frozenset({"stream", "errors"})
    ),
    "open-webui": Client(
        "Open WebUI",
        "open-webui.md",
        "client-open-webui",
        "open_webui_server.py",
        frozenset({"chat", "stream", "embeddings"}),
    ),
    "java": Client("Java, HttpClient", "java.md", "java", "Http.java"),
}


def interpreter(client: Client, folder: Path) -> tuple[Sequence[str], Path]:
    """The command that runs a program of the client, and the folder it has to run in. Creates the environment if it is
    missing; for Node, programs are copied beside its packages in `folder`."""
    if client.environment == "java":
        java = shutil.which("java")
        assert java is not None, "the caller checks it"
        return [java], PROGRAMS
    if client.environment in NODE:
        (folder / "node_modules").symlink_to(_node_packages(NODE[client.environment]))
        for file in PROGRAMS.glob("*.mjs"):
            shutil.copy(file, folder)
        return ["node"], folder
    command = [sys.executable, "environments/make.py", client.environment]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return [str(ROOT / ".envs" / client.environment / "bin/python")], PROGRAMS


def missing(client: Client) -> str | None:
    """What this machine lacks to run the client."""
    needed = {"java": ("java",), **dict.fromkeys(NODE, ("node", "npm"))}.get(client.environment, ())
    lacking = [name for name in needed if shutil.which(name) is None]
    return f"no {' and '.join(lacking)} here" if lacking else None


def _node_packages(recipe: Path) -> Path:
    """The packages of the folder's package-lock.json, in the user's cache."""
    digest = hashlib.sha256((recipe / "package-lock.json").read_bytes()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quarterdeck/envs"
    made = cache / f"client-node-{digest}"
    if not made.exists():
        new = cache / f"{made.name}.{os.getpid()}"
        new.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(recipe / name, new)
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=new, check=True, capture_output=True)
        try:
            new.rename(made)
        except OSError:  # another test run was faster
            shutil.rmtree(new)
    return made / "node_modules"
