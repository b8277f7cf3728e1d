"""The programs that move images: skopeo, docker, podman, buildah; ctr, kind and k3d for nodes."""

import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

import click

SAVERS = ("skopeo", "docker", "podman", "buildah")
PUSHERS = SAVERS
NODES = ("containerd", "docker", "podman", "kind", "k3d")


def choose(wanted: str | None, known: Sequence[str]) -> str:
    """The program to use. Raises ClickException."""
    for name in [wanted] if wanted else known:
        if shutil.which(name):
            return name
    raise click.ClickException(f"{wanted or 'none of ' + ', '.join(known)} is on PATH")


def run(*command: str) -> None:
    """Run a program, its output on the terminal. Raises ClickException."""
    click.echo(f"$ {' '.join(command)}", err=True)
    if (status := subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode) != 0:  # noqa: S603
        raise click.ClickException(f"{command[0]} failed ({status})")


def is_present(tool: str, image: str) -> bool:
    """Whether a local store has the image; then it is not pulled."""
    look = {"docker": ["image", "inspect"], "podman": ["image", "exists"], "buildah": ["inspect", "--type=image"]}
    if tool not in look:
        return False
    command = [tool, *look[tool], image]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603


def save(tool: str, images: Sequence[str], scratch: Path, archive: Path) -> Path | None:
    """Pull what is not there and save it. Returns the folder of an OCI layout to be packed; None: the archive is
    written. Raises ClickException."""
    layout = scratch / "layout"
    for image in images:
        if tool == "skopeo":
            run("skopeo", "copy", "--quiet", f"docker://{image}", f"oci:{layout}:{image}")
            continue
        if not is_present(tool, image):
            run(tool, "pull", image)
        if tool != "docker":
            run(tool, "push", "--quiet", image, f"oci:{layout}:{image}")
    if tool != "docker":
        return layout
    run("docker", "save", "--output", str(archive), *images)
    return None


def import_into(node: str, archive: Path, *, address: str | None, cluster: str | None) -> None:
    """Load an archive into a container runtime on this machine or into the nodes of a local cluster. Raises
    ClickException."""
    if node == "containerd":
        run("ctr", *(["--address", address] if address else []), "--namespace=k8s.io", "images", "import", str(archive))
    elif node == "kind":
        run("kind", "load", "image-archive", str(archive), *(["--name", cluster] if cluster else []))
    elif node == "k3d":
        run("k3d", "image", "import", str(archive), *(["--cluster", cluster] if cluster else []))
    else:
        run(node, "load", "--input", str(archive))


def push(tool: str, archive: Path, images: Sequence[str], registry: str, scratch: Path) -> None:
    """Push the images of an archive to a registry, under their paths. Raises ClickException."""
    if tool == "docker":
        run("docker", "load", "--input", str(archive))
    else:
        with tarfile.open(archive) as opened:
            opened.extractall(scratch, filter="data")
    for image in images:
        target = pushed_name(image, registry)
        if tool == "skopeo":
            run("skopeo", "copy", "--quiet", f"oci:{scratch}:{image}", f"docker://{target}")
            continue
        if tool != "docker":
            run(tool, "pull", "--quiet", f"oci:{scratch}:{image}")
        run(tool, "tag", image, target)
        run(tool, "push", target)


def pushed_name(image: str, registry: str) -> str:
    """The image's name in a registry: `localhost/quarterdeck-gateway:0.1.0` → `<registry>/quarterdeck-gateway:0.1.0`,
    as the chart's `global.imageRegistry` has it."""
    return f"{registry.rstrip('/')}/{image.partition('/')[2]}"
