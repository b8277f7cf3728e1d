"""Builds and loads images of the catalogue, each once for its content."""

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from images import python_base, sbom
from images.builders import Builder, choose, stage
from images.catalogue import IMAGES, PYTHON, REGISTRY, in_build_order, input_hash
from images.layout import cache_folder
from images.loading import Cluster

CHECKOUT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """One process at a time, on this machine."""
    folder = cache_folder() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Build:
    """One run: builds what is missing and knows what each image was made of."""

    def __init__(self, builder: Builder, checkout: Path, scratch: Path, say: Callable[[str], None]) -> None:
        self._builder = builder
        self._checkout = checkout
        self._scratch = scratch
        self._say = say
        self.hashes: dict[str, str] = {}

    def python(self) -> str:
        """The Python image that the others are built on."""
        if given := os.environ.get("BASE_IMAGE"):
            return given
        local = python_base.reference()
        if self._builder.has(local):
            return local
        if self._builder.has(python_base.UPSTREAM) or python_base.is_hub_reachable():
            return python_base.UPSTREAM
        with locked("python"):
            if not self._builder.has(local):
                self._say("python: Docker Hub can't be reached; making a Python image of Debian's packages")
                folder = Path(tempfile.mkdtemp(dir=self._scratch))
                python_base.make_archive(folder)
                self._builder.build(folder, "Dockerfile", local, {})
        return local

    def make(self, names: list[str], tag: str) -> dict[str, str]:
        """Build these images. Returns their references, by key."""
        python = self.python()
        references: dict[str, str] = {}
        for name in in_build_order(names):
            image = IMAGES[name]
            parents = {arg: python if one == PYTHON else self.hashes[one] for arg, one in image.on.items()}
            if engine := os.environ.get("ENGINE_IMAGE") if name == "engine" else None:
                parents["ENGINE_IMAGE"] = engine
            self.hashes[name] = input_hash(self._checkout, image, parents)
            built = f"{REGISTRY}/{image.name}:in-{self.hashes[name]}"
            if not self._builder.has(built):
                with locked(self.hashes[name]):  # another process may build it for the same content
                    if not self._builder.has(built):
                        self._build(name, built, python, parents)
            references[name] = f"{REGISTRY}/{image.name}:{image.tag or tag}"
            self._builder.tag(built, references[name])
        return {name: references[name] for name in names}

    def _build(self, name: str, built: str, python: str, parents: dict[str, str]) -> None:
        image = IMAGES[name]
        arguments = dict(parents)
        for argument, parent in image.on.items():
            arguments[argument] = (
                python if parent == PYTHON else f"{REGISTRY}/{IMAGES[parent].name}:in-{self.hashes[parent]}"
            )
        started = time.monotonic()
        context = stage(self._checkout, image, self._scratch)
        self._builder.build(context, image.dockerfile, built, arguments)
        self._say(f"{name}: built in {time.monotonic() - started:.1f} s")


def write_sboms(builder: Builder, references: dict[str, str], hashes: dict[str, str], folder: Path) -> list[Path]:
    """Write `<image>.cdx.json` for each image with a Python of ours, unless it is there for this content."""
    written = []
    folder.mkdir(parents=True, exist_ok=True)
    for name, reference in references.items():
        image = IMAGES[name]
        if image.packages is None:
            continue
        file = folder / f"{image.name}.cdx.json"
        mark = f"{image.name}@in-{hashes[name]}"
        if not file.exists() or mark not in file.read_text(encoding="utf-8"):
            found = json.loads(builder.output(reference, image.packages, "-c", sbom.COLLECT))
            bill = sbom.document(image.name, f"in-{hashes[name]}", found)
            file.write_text(json.dumps(bill, indent=1) + "\n", encoding="utf-8")
            written.append(file)
    return written


def load(
    builder: Builder, hashes: dict[str, str], references: dict[str, str], scratch: Path, cluster: Cluster | None = None
) -> list[str]:
    """Load into a local cluster (default: the one of KUBECONFIG) what it does not have. Returns what was loaded."""
    cluster = cluster or Cluster(CHECKOUT, cache_folder() / "loaded")
    with locked(f"load-{cluster.uid}"):
        present = cluster.has()
        missing = {name: one for name, one in references.items() if present.get(one) != hashes[name]}
        if missing:
            archive = scratch / "images.tar"
            builder.save(list(missing.values()), archive)
            cluster.load(archive, {one: hashes[name] for name, one in missing.items()})
    return list(missing)


def build_and_load(names: list[str], say: Callable[[str], None], cluster: Cluster | None = None) -> dict[str, str]:
    """Build these images and load them into a local cluster. Returns their references by key, with tags that name their
    content (`in-<hash>`), so that clones that test at the same time do not replace each other's images."""
    with tempfile.TemporaryDirectory(prefix="quarterdeck-images-") as folder:
        scratch = Path(folder)
        builder = choose(scratch)
        build = Build(builder, CHECKOUT, scratch, say)
        build.make(names, "dev")
        references = {name: f"{REGISTRY}/{IMAGES[name].name}:in-{build.hashes[name]}" for name in names}
        load(builder, build.hashes, references, scratch, cluster)
    return references
