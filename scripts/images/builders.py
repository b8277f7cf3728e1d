"""Builds one image from its Dockerfile: with buildah, or with docker or podman where they work."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from images import pip_configuration
from images.catalogue import Image, files_of
from images.programs import BuildError, run, succeeds

CERTIFICATES = "/etc/ssl/certs"


class Builder(Protocol):
    """What the build needs of a builder."""

    name: str

    def has(self, reference: str) -> bool: ...
    def tag(self, reference: str, new: str) -> None: ...
    def build(self, context: Path, dockerfile: str, reference: str, arguments: Mapping[str, str]) -> None: ...
    def save(self, references: list[str], archive: Path) -> None: ...
    def push(self, reference: str, remote: str) -> None: ...
    def output(self, reference: str, *command: str) -> str: ...


class Docker:
    """docker or podman."""

    def __init__(self, name: str) -> None:
        self.name = name

    def has(self, reference: str) -> bool:
        return succeeds(self.name, "image", "inspect", reference)

    def tag(self, reference: str, new: str) -> None:
        run(self.name, "tag", reference, new)

    def build(self, context: Path, dockerfile: str, reference: str, arguments: Mapping[str, str]) -> None:
        given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        run(self.name, "build", "--quiet", *given, "-f", str(context / dockerfile), "-t", reference, str(context))

    def save(self, references: list[str], archive: Path) -> None:
        many = ["--multi-image-archive"] if self.name == "podman" else []
        run(self.name, "save", *many, "-o", str(archive), *references)

    def push(self, reference: str, remote: str) -> None:
        run(self.name, "tag", reference, remote)
        run(self.name, "push", remote)

    def output(self, reference: str, *command: str) -> str:
        return run(self.name, "run", "--rm", f"--entrypoint={command[0]}", reference, *command[1:])


class Buildah:
    """buildah, in a chroot and with the network of this machine: it needs no daemon and no runtime."""

    name = "buildah"

    def __init__(self, scratch: Path) -> None:
        self._environ = {**os.environ, "STORAGE_DRIVER": "overlay"}  # vfs copies a whole image for each step
        options = pip_configuration.read()
        self._mounts = [f"{CERTIFICATES}:{CERTIFICATES}:ro"]
        if options:
            pip_conf = scratch / "pip.conf"
            pip_configuration.write(options, pip_conf)
            self._mounts += [f"{pip_conf}:/etc/pip.conf:ro"]
            self._mounts += [f"{folder}:{folder}:ro" for folder in pip_configuration.folders(options)]

    def has(self, reference: str) -> bool:
        return succeeds("buildah", "inspect", "--type", "image", reference, environ=self._environ)

    def tag(self, reference: str, new: str) -> None:
        run("buildah", "tag", reference, new, environ=self._environ)

    def build(self, context: Path, dockerfile: str, reference: str, arguments: Mapping[str, str]) -> None:
        given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        mounts = [part for mount in self._mounts for part in ("-v", mount)]
        options = ("--quiet", "--layers", "--isolation", "chroot", "--network", "host", "--timestamp", "0")
        command = ("buildah", "bud", *options, *mounts, *given, "-f", str(context / dockerfile), "-t", reference)
        run(*command, str(context), environ=self._environ)

    def save(self, references: list[str], archive: Path) -> None:
        from images.layout import write_archive

        write_archive(references, archive)

    def push(self, reference: str, remote: str) -> None:
        run("buildah", "push", "--quiet", reference, f"docker://{remote}", environ=self._environ)

    def output(self, reference: str, *command: str) -> str:
        container = run("buildah", "from", "--pull-never", reference, environ=self._environ).strip()
        try:
            return run("buildah", "run", "--isolation", "chroot", container, "--", *command, environ=self._environ)
        finally:
            run("buildah", "rm", container, environ=self._environ)


def choose(scratch: Path) -> Builder:
    """CONTAINER_TOOL=docker|podman|buildah, else the first that works. Raises BuildError."""
    wanted = os.environ.get("CONTAINER_TOOL")
    for name in [wanted] if wanted else ["docker", "podman", "buildah"]:
        if name in ("docker", "podman") and succeeds(name, "info"):
            return Docker(name)
        if name == "buildah" and succeeds("buildah", "--version"):
            return Buildah(scratch)
    raise BuildError(f"{wanted or 'none of docker, podman and buildah'} works here")


def stage(checkout: Path, image: Image, folder: Path) -> Path:
    """Copy the image's files into a folder, with fixed times and modes, so that a layer's cache does not miss."""
    context = Path(tempfile.mkdtemp(dir=folder))
    for file in [checkout / image.dockerfile, *files_of(checkout, image)]:
        target = context / file.relative_to(checkout)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        target.chmod(0o755 if os.access(file, os.X_OK) else 0o644)
    for path in sorted(context.rglob("*"), reverse=True):
        if path.is_dir():
            path.chmod(0o755)
        os.utime(path, (0, 0))
    return context
