"""Builds the project's images, and loads them into a local cluster: `make images`.

  python3 scripts/images [--tag TAG] [--load | --push REGISTRY | --save FILE] [IMAGE…]

A software bill of materials of each is written to build/images/<name>.cdx.json (CycloneDX).

IMAGE: gateway worker operator simulator load ray engine-cpu engine redis postgres, or `default`, `test`.
CONTAINER_TOOL=docker|podman|buildah (the first that works), BASE_IMAGE=<a Python 3.11 image> (Docker Hub's, or made of
Debian's packages where Docker Hub can't be reached), ENGINE_IMAGE=<an image with vLLM>.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a folder, with the system's Python

from images.build import CHECKOUT, Build, load, write_sboms
from images.builders import choose
from images.catalogue import REGISTRY, selected
from images.programs import BuildError


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
            for file in write_sboms(builder, references, build.hashes, CHECKOUT / "build/images"):
                say(f"{file.relative_to(CHECKOUT)} written")
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
