"""OCI archives of images: several images in one tar file, each blob once, named by its digest."""

import hashlib
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quarterdeck.cli.output import reason_of

NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
"""Annotations of the index that hold an image's name; the first is the full one where both are there."""
CHUNK = 1024 * 1024


class ArchiveError(Exception):
    """The archive is damaged or is none; the message says where."""


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """One image of an archive."""

    name: str
    digest: str
    bytes: int
    """Of its compressed layers; layers that images share are counted in each."""


def pack(folder: Path, archive: Path) -> None:
    """Write an OCI layout's folder as one file, without times and owners: equal layouts give equal files."""
    fresh = archive.with_name(f".{archive.name}.part")
    with tarfile.open(fresh, "w") as out:
        for file in sorted(one for one in folder.rglob("*") if one.is_file()):
            entry = out.gettarinfo(file, arcname=str(file.relative_to(folder)))
            entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname, entry.mode = 0, 0, 0, "", "", 0o644
            with file.open("rb") as content:
                out.addfile(entry, content)
    fresh.replace(archive)


def verify(archive: Path) -> list[ArchivedImage]:
    """Check each blob against its digest, and that every image is whole. Returns the images. Raises ArchiveError."""
    documents: dict[str, bytes] = {}
    sizes: dict[str, int] = {}
    try:
        with tarfile.open(archive) as opened:
            for entry in opened:
                content = opened.extractfile(entry) if entry.isfile() else None
                if content is None:
                    continue
                name = entry.name.removeprefix("./")
                hashed = hashlib.sha256()
                kept = b""
                while piece := content.read(CHUNK):
                    hashed.update(piece)
                    kept = kept + piece if entry.size <= CHUNK else b""
                folder, _, digest = name.rpartition("/")
                if folder == "blobs/sha256":
                    if hashed.hexdigest() != digest:
                        raise ArchiveError(f"{archive}: blob {digest[:12]}… is damaged")
                    sizes[f"sha256:{digest}"] = entry.size
                    documents[f"sha256:{digest}"] = kept
                else:
                    documents[name] = kept
    except (OSError, tarfile.TarError, EOFError) as error:
        raise ArchiveError(f"{archive}: {reason_of(error)}") from None
    if "index.json" not in documents:
        raise ArchiveError(f"{archive} is no OCI archive: it has no index.json (Docker writes one since version 25)")
    return [_image(archive, entry, documents, sizes) for entry in _json(archive, documents, "index.json")["manifests"]]


def _image(archive: Path, entry: dict[str, Any], documents: dict[str, bytes], sizes: dict[str, int]) -> ArchivedImage:
    """One image of the index, all of whose blobs must be there."""
    annotations = entry.get("annotations") or {}
    name = next((annotations[each] for each in NAMES if each in annotations), "")
    digest = str(entry["digest"])
    manifest = _json(archive, documents, digest)
    while "manifests" in manifest:  # an index of platforms: one was saved
        present = [each for each in manifest["manifests"] if each["digest"] in documents]
        if not present:
            raise ArchiveError(f"{archive}: {name or digest} has no platform's manifest")
        manifest = _json(archive, documents, present[0]["digest"])
    blobs = [manifest["config"], *manifest["layers"]]
    if missing := [each["digest"] for each in blobs if each["digest"] not in sizes]:
        raise ArchiveError(f"{archive}: {name or digest} lacks {len(missing)} of {len(blobs)} blobs")
    return ArchivedImage(str(name), digest, sum(sizes[each["digest"]] for each in manifest["layers"]))


def _json(archive: Path, documents: dict[str, bytes], name: str) -> dict[str, Any]:
    try:
        found = json.loads(documents[name])
    except (KeyError, ValueError):
        raise ArchiveError(f"{archive}: {name} is missing or no JSON") from None
    if not isinstance(found, dict):
        raise ArchiveError(f"{archive}: {name} is no JSON object")
    return found


def write_checksum(archive: Path) -> Path:
    """Write `<archive>.sha256`, as `sha256sum --check` reads it."""
    file = archive.with_name(f"{archive.name}.sha256")
    with archive.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    file.write_text(f"{digest}  {archive.name}\n", encoding="utf-8")
    return file


def check_checksum(archive: Path) -> bool:
    """Whether `<archive>.sha256` is there; raises ArchiveError if it does not fit."""
    file = archive.with_name(f"{archive.name}.sha256")
    if not file.exists():
        return False
    with archive.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if file.read_text(encoding="utf-8").split()[:1] != [digest]:
        raise ArchiveError(f"{archive} does not have the checksum of {file.name}: it was damaged on its way")
    return True
