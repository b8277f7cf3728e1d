"""`quarterdeck images`: the images of the chart, saved into one archive and loaded where no registry can be reached."""

import tempfile
from importlib import resources
from pathlib import Path

import click

from quarterdeck.cli import image_archive, image_tools
from quarterdeck.cli.output import as_json, print_json, print_table

FILE = "chart_images.yaml"


def chart_images() -> dict[str, str]:
    """The images of the chart's default values, by the place of their values."""
    import yaml

    text = (resources.files("quarterdeck.cli") / FILE).read_text(encoding="utf-8")
    found: dict[str, str] = yaml.safe_load(text)
    return found


def selected(names: tuple[str, ...], registry: str | None) -> list[str]:
    """Images by their place (`gateway`, `engines.vllm`) or full name; all by default. `registry` replaces `localhost`.
    Raises ClickException."""
    known = chart_images()
    chosen: dict[str, None] = {}
    for name in names or tuple(known):
        image = known.get(name, name)
        if "/" not in image:
            raise click.ClickException(f"no image '{name}'; `quarterdeck images list` shows them")
        if registry and image.startswith("localhost/"):
            image = image_tools.pushed_name(image, registry)
        chosen[image] = None
    return list(chosen)


@click.group("images", short_help="List, save and load the chart's images, for clusters without Internet.")
def command() -> None:
    """List, save and load the chart's images, for clusters without Internet.

    \b
    quarterdeck images save platform.tar gateway worker operator redis engines.vllm
    quarterdeck images load platform.tar --registry registry.internal:5000/quarterdeck
    helm install quarterdeck charts/quarterdeck --set global.imageRegistry=registry.internal:5000/quarterdeck
    """


@command.command("list")
@click.option("--registry", help="Where images that no public registry has (`localhost/…`) are.")
@as_json
def list_images(registry: str | None, is_json: bool) -> None:
    """List the images that the chart's default values name. The first column is their place in the values."""
    rows = [(place, selected((place,), registry)[0]) for place in chart_images()]
    if is_json:
        print_json([{"values": place, "image": image} for place, image in rows])
    else:
        print_table(("VALUES", "IMAGE"), rows)


@command.command("save")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@click.option("--registry", help="Where images that no public registry has (`localhost/…`) are.")
@click.option("--tool", type=click.Choice(image_tools.SAVERS), help="Program to use. Default: the first on PATH.")
def save(file: Path, images: tuple[str, ...], registry: str | None, tool: str | None) -> None:
    """Save images into FILE, one OCI archive, and its checksum into FILE.sha256.

    IMAGE: a place of `quarterdeck images list`, or any image's name. Default: all of the list.
    """
    chosen = selected(images, registry)
    program = image_tools.choose(tool, image_tools.SAVERS)
    with tempfile.TemporaryDirectory(dir=file.absolute().parent, prefix=".images-") as folder:
        layout = image_tools.save(program, chosen, Path(folder), file)
        if layout is not None:
            image_archive.pack(layout, file)
    _show(_verified(file))
    click.echo(f"{file}: {file.stat().st_size / 1e6:.0f} MB, checksum in {image_archive.write_checksum(file)}")


@command.command("load")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--registry", help="Push them to this registry, with a path or without.")
@click.option("--into", "node", type=click.Choice(image_tools.NODES), help="Or load them into this runtime or cluster.")
@click.option("--address", help="containerd's socket, if it is not ctr's default.")
@click.option("--cluster", help="Name of the kind or k3d cluster.")
@click.option("--tool", type=click.Choice(image_tools.PUSHERS), help="Program that pushes. Default: the first on PATH.")
def load(
    file: Path, registry: str | None, node: str | None, address: str | None, cluster: str | None, tool: str | None
) -> None:
    """Load the images of FILE into a registry, or into a node's container runtime. Checksums are verified first."""
    if (registry is None) == (node is None):
        raise click.UsageError("give one of --registry and --into")
    found = _verified(file)
    if node is not None:
        image_tools.import_into(node, file, address=address, cluster=cluster)
    elif registry is not None:
        program = image_tools.choose(tool, image_tools.PUSHERS)
        with tempfile.TemporaryDirectory(prefix="quarterdeck-images-") as folder:
            image_tools.push(program, file, [image.name for image in found], registry, Path(folder))
    _show(found)


def _verified(file: Path) -> list[image_archive.ArchivedImage]:
    try:
        image_archive.check_checksum(file)
        return image_archive.verify(file)
    except image_archive.ArchiveError as error:
        raise click.ClickException(str(error)) from None


def _show(images: list[image_archive.ArchivedImage]) -> None:
    head = ("IMAGE", "DIGEST", "MB")
    print_table(head, [(one.name, one.digest[:19], f"{one.bytes / 1e6:.0f}") for one in images])
