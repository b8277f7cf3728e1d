"""The project's images: their Dockerfiles, what each is built on, and the hash of what each is made of.

An image is named by that hash (`localhost/quarterdeck-base:in-3f2a…`) besides its tag, so nothing that is unchanged is
built or loaded again, in any clone.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

REGISTRY = "localhost"
PYTHON = "python"


@dataclass(frozen=True)
class Image:
    """One image. Paths are relative to the checkout."""

    name: str
    """With the registry: `localhost/<name>:<tag>`."""
    dockerfile: str
    inputs: tuple[str, ...]
    """Files and folders that the Dockerfile copies."""
    on: Mapping[str, str]
    """Build arguments that name another image of this catalogue: argument to key."""
    tag: str | None = None
    """A fixed tag. None: the tag of the call."""
    packages: str | None = "/opt/quarterdeck/bin/python"
    """The Python whose installed distributions make the image's SBOM. None: it has no Python of ours."""


_ENVIRONMENT = ("pyproject.toml", "LICENSE")
_LOAD_TESTS = ("loadtests/profiles", "loadtests/traces", "loadtests/budgets.yaml")


def _service(name: str) -> Image:
    return Image(
        f"quarterdeck-{name}", f"services/{name}/Dockerfile", (f"services/{name}/main.py",), {"RUNTIME": "base"}
    )


IMAGES: dict[str, Image] = {
    "base": Image(
        "quarterdeck-base",
        "services/base/Dockerfile",
        (*_ENVIRONMENT, "environments/core.txt", "src"),
        {"BASE_IMAGE": PYTHON},
    ),
    "gateway": _service("gateway"),
    "worker": _service("worker"),
    "operator": _service("operator"),
    "simulator": _service("simulator"),
    "load": Image(
        "quarterdeck-load",
        "services/load/Dockerfile",
        (*_ENVIRONMENT, "environments/load.txt", "src", "services/load/main.py", *_LOAD_TESTS),
        {"BASE_IMAGE": PYTHON},
    ),
    "ray": Image(
        "quarterdeck-ray",
        "services/engine/ray.Dockerfile",
        (*_ENVIRONMENT, "environments/engine.txt", "src", "services/engine/main.py"),
        {"BASE_IMAGE": PYTHON},
    ),
    "engine-cpu": Image(
        "quarterdeck-engine-cpu",
        "services/engine/cpu.Dockerfile",
        (*_ENVIRONMENT, "environments/engine.txt", "src", "services/engine/main.py"),
        {"BASE_IMAGE": PYTHON},
    ),
    "engine": Image(
        "quarterdeck-engine",
        "services/engine/Dockerfile",
        (*_ENVIRONMENT, "environments/engine-gpu.txt", "src", "services/engine/main.py"),
        {},
        packages="python3",
    ),
    "redis": Image(
        "redis", "tests/cluster/images/redis/Dockerfile", (), {"BASE_IMAGE": PYTHON}, tag="7", packages=None
    ),
    "postgres": Image(
        "postgres",
        "tests/cluster/images/postgres/Dockerfile",
        ("tests/cluster/images/postgres/entrypoint.sh",),
        {"BASE_IMAGE": PYTHON},
        tag="15",
        packages=None,
    ),
}

GROUPS: dict[str, tuple[str, ...]] = {
    "default": ("gateway", "worker", "operator", "simulator", "load"),
    "test": ("gateway", "worker", "operator", "simulator", "redis", "postgres"),
}


def selected(names: list[str]) -> list[str]:
    """Keys of the catalogue for these keys and groups, each once. Raises ValueError for an unknown one."""
    found: dict[str, None] = {}
    for name in names:
        if name not in GROUPS and name not in IMAGES:
            raise ValueError(f"no image {name!r}; there are {', '.join([*IMAGES, *GROUPS])}")
        found.update(dict.fromkeys(GROUPS.get(name, (name,))))
    return list(found)


def in_build_order(names: list[str]) -> list[str]:
    """These images and the images they are built on, each after those."""
    found: dict[str, None] = {}

    def visit(name: str) -> None:
        if name != PYTHON and name not in found:
            for parent in IMAGES[name].on.values():
                visit(parent)
            found[name] = None

    for name in names:
        visit(name)
    return list(found)


def files_of(checkout: Path, image: Image) -> list[Path]:
    """The files that the image is made of, sorted, without byte code and metadata of an editable install."""
    found: list[Path] = []
    for entry in image.inputs:
        path = checkout / entry
        if path.is_file():
            found.append(path)
        else:
            found += [
                file
                for file in path.rglob("*")
                if file.is_file()
                and "__pycache__" not in file.parts
                and not any(part.endswith(".egg-info") for part in file.parts)
            ]
    return sorted(found)


def input_hash(checkout: Path, image: Image, parents: Mapping[str, str]) -> str:
    """16 hex digits that change if and only if an input of the image changes.

    parents: build argument to the input hash (or name) of the image that it names.
    """
    total = hashlib.sha256((checkout / image.dockerfile).read_bytes())
    for argument, parent in sorted(parents.items()):
        total.update(f"\0{argument}={parent}".encode())
    for file in files_of(checkout, image):
        mode = "x" if os.access(file, os.X_OK) else "-"
        total.update(f"\0{file.relative_to(checkout)}{mode}".encode())
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()[:16]
