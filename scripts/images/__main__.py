"""Builds the project's images, and loads them into a local cluster: `make images`.

  python3 scripts/images [--tag TAG] [--load | --push REGISTRY | --save FILE] [IMAGE…]

IMAGE: gateway worker operator simulator load ray engine-cpu engine redis postgres, or `default`, `test`.
CONTAINER_TOOL=docker|podman|buildah (the first that works), BASE_IMAGE=<a Python 3.11 image> (Docker Hub's, or made of
Debian's packages where Docker Hub can't be reached), ENGINE_IMAGE=<an image with vLLM>.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a folder, with the system's Python

from images import python_base
from images.builders import Builder, choose, stage
from images.catalogue import IMAGES, PYTHON, REGISTRY, in_build_order, input_hash, selected
from images.layout import cache_folder
from images.loading import Cluster
from images.programs import BuildError

CHECKOUT = Path(__file__).resolve().parents[2]


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


def load(builder: Builder, hashes: dict[str, str], references: dict[str, str], scratch: Path) -> list[str]:
    """Load into the local cluster what it does not have. Returns what was loaded."""
    cluster = Cluster(CHECKOUT, cache_folder() / "loaded")
    present = cluster.has()
    missing = {name: one for name, one in references.items() if present.get(one) != hashes[name]}
    if missing:
        archive = scratch / "images.tar"
        builder.save(list(missing.values()), archive)
        cluster.load(archive, {one: hashes[name] for name, one in missing.items()})
    return list(missing)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/images", description="Build the project's images.")
    parser.add_argument("images", nargs="*", default=["default"], metavar="IMAGE")
    parser.add_argument("--tag", default=os.environ.get("TAG") or "dev")
    parser.add_argument(
        "--load", action="store_true", help="load them into the cluster of KUBECONFIG or shared/cluster"
    )
    parser.add_argument("--push", metavar="REGISTRY", help="push them to REGISTRY/<name>:<tag>")
    parser.add_argument("--save", metavar="FILE", type=Path, help="write them into one archive")
    options = parser.parse_args(arguments)
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:6.1f}s] {text}", flush=True)

    try:
        names = selected(options.images)
        with tempfile.TemporaryDirectory(prefix="quarterdeck-images-") as folder:
            scratch = Path(folder)
            builder = choose(scratch)
            build = Build(builder, CHECKOUT, scratch, say)
            references = build.make(names, options.tag)
            if options.save:
                builder.save(list(references.values()), options.save)
            if options.push:
                for reference in references.values():
                    builder.push(reference, f"{options.push.rstrip('/')}/{reference.removeprefix(REGISTRY + '/')}")
            loaded = load(builder, build.hashes, references, scratch) if options.load else []
    except (BuildError, ValueError, OSError) as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    for name, reference in references.items():
        say(f"{reference}{' loaded' if name in loaded else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
