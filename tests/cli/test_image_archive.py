"""OCI archives: whole, or named as damaged."""

import hashlib
import json
from pathlib import Path

import pytest

from quarterdeck.cli.image_archive import ArchiveError, check_checksum, pack, verify, write_checksum

NAME = "localhost/quarterdeck-gateway:0.1.0"


def layout(folder: Path, layer: bytes = b"a layer") -> Path:
    """An OCI layout of one image."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)

    def add(content: bytes) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"digest": f"sha256:{digest}", "size": len(content)}

    manifest = {"config": add(b"{}"), "layers": [add(layer)]}
    entry = {**add(json.dumps(manifest).encode()), "annotations": {"org.opencontainers.image.ref.name": NAME}}
    (folder / "index.json").write_text(json.dumps({"manifests": [entry]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    pack(layout(tmp_path / "layout"), tmp_path / "images.tar")
    return tmp_path / "images.tar"


def test_an_archive_lists_its_images_by_name(archive: Path) -> None:
    [image] = verify(archive)
    assert (image.name, image.bytes) == (NAME, len(b"a layer"))


def test_equal_layouts_give_equal_archives(archive: Path, tmp_path: Path) -> None:
    pack(layout(tmp_path / "again"), tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == archive.read_bytes()


def test_a_changed_byte_of_a_layer_is_found(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes().replace(b"a layer", b"a lawyr"))
    with pytest.raises(ArchiveError, match="is damaged"):
        verify(archive)


def test_an_image_without_one_of_its_layers_is_found(tmp_path: Path) -> None:
    folder = layout(tmp_path / "layout")
    (folder / "blobs/sha256" / hashlib.sha256(b"a layer").hexdigest()).unlink()
    pack(folder, tmp_path / "images.tar")
    with pytest.raises(ArchiveError, match="lacks 1 of 2 blobs"):
        verify(tmp_path / "images.tar")


@pytest.mark.parametrize("content", [b"", b"no tar file", b"x" * 2048])
def test_another_file_is_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "images.tar").write_bytes(content)
    with pytest.raises(ArchiveError):
        verify(tmp_path / "images.tar")


def test_a_truncated_archive_is_refused_by_its_checksum_or_its_blobs(archive: Path) -> None:
    write_checksum(archive)
    assert check_checksum(archive)
    archive.write_bytes(archive.read_bytes()[:1500])
    with pytest.raises(ArchiveError, match="does not have the checksum of images"):
        check_checksum(archive)
    archive.with_name("images.tar.sha256").unlink()
    assert not check_checksum(archive)
    with pytest.raises(ArchiveError):
        verify(archive)
