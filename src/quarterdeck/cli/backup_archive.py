"""The archive of a backup: a compressed tar with a manifest first, then files of the state folder.

The manifest names every file with its size and SHA-256, so a restore uses all of them or none.
"""

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from quarterdeck.cli.output import reason_of

FORMAT = 1
MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 64 * 2**20
_PIECE = 2**20


class ArchiveError(Exception):
    """An archive can't be written, or can't be used; the message says why."""


@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """A file of the archive. `path` is relative to the state folder."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an archive has, and what made it."""

    format: int
    quarterdeck: str
    """The version of the program."""
    created: str
    """ISO 8601, UTC."""
    database: str
    """sqlite, or postgresql: that one is not in the archive."""
    revision: str | None
    """Of the tables. None: the database is not in the archive."""
    files: tuple[ArchivedFile, ...]


def write(target: Path, sources: Mapping[str, Path], **about: Any) -> Manifest:
    """Write an archive of these files, readable by this user only: it has keys. `sources` are by path in the archive,
    and must not change meanwhile. Raises ArchiveError and OSError."""
    files = tuple(ArchivedFile(path, *_measure(source)) for path, source in sorted(sources.items()))
    manifest = Manifest(format=FORMAT, files=files, **about)
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            with tarfile.open(fileobj=out, mode="w:gz", compresslevel=6) as archive:
                _add_manifest(archive, manifest, fresh.with_name(f"{fresh.name}.manifest"))
                for file in files:
                    archive.add(sources[file.path], file.path, recursive=False, filter=_private)
            out.flush()
            os.fsync(out.fileno())
        read_manifest(fresh)
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)
    return manifest


def _add_manifest(archive: tarfile.TarFile, manifest: Manifest, file: Path) -> None:
    try:
        file.write_text(json.dumps(asdict(manifest), indent=1), encoding="utf-8")
        archive.add(file, MANIFEST, recursive=False, filter=_private)
    finally:
        file.unlink(missing_ok=True)


def read_manifest(file: Path) -> Manifest:
    """Raises ArchiveError where it is no archive of a backup, or one of a newer format."""
    with _opened(file) as archive:
        return _manifest(archive, file)


def extract(file: Path, folder: Path) -> Manifest:
    """Unpack all files into an empty folder, and verify them. Raises ArchiveError and OSError."""
    with _opened(file) as archive:
        manifest = _manifest(archive, file)
        expected = {each.path: each for each in manifest.files}
        for member in _members(archive, file):
            wanted = expected.pop(member.name, None)
            if wanted is None or not member.isfile():
                raise ArchiveError(f"{file}: {member.name!r} is not in its manifest")
            _unpack(archive, member, wanted, folder, file)
        if expected:
            raise ArchiveError(f"{file}: {sorted(expected)[0]!r} is missing")
    return manifest


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, wanted: ArchivedFile, folder: Path, file: Path) -> None:
    target = folder / wanted.path
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    digest, size = hashlib.sha256(), 0
    source = archive.extractfile(member)
    assert source is not None  # noqa: S101  # it is a file
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        for piece in _pieces(source, file):
            digest.update(piece)
            size += len(piece)
            out.write(piece)
        out.flush()
        os.fsync(out.fileno())
    if (size, digest.hexdigest()) != (wanted.size, wanted.sha256):
        raise ArchiveError(f"{file}: {wanted.path!r} is damaged")


def _pieces(source: Any, file: Path) -> Iterator[bytes]:
    while True:
        try:
            piece = source.read(_PIECE)
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            raise ArchiveError(f"{file} is damaged: {error}") from None
        if not piece:
            return
        yield piece


def _members(archive: tarfile.TarFile, file: Path) -> Iterator[tarfile.TarInfo]:
    """Those after the manifest."""
    while True:
        try:
            member = archive.next()
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            raise ArchiveError(f"{file} is damaged: {error}") from None
        if member is None:
            return
        yield member


def _opened(file: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(file, mode="r:gz")
    except FileNotFoundError:
        raise ArchiveError(f"{file} does not exist") from None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ArchiveError(f"{file} is no backup: {reason_of(error)}") from None


def _manifest(archive: tarfile.TarFile, file: Path) -> Manifest:
    try:
        member = archive.next()
        source = archive.extractfile(member) if member and member.name == MANIFEST else None
        data = json.loads(source.read(MAX_MANIFEST_BYTES)) if source else None
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise ArchiveError(f"{file} is damaged: {error}") from None
    if not isinstance(data, dict) or "format" not in data:
        raise ArchiveError(f"{file} is no backup of this platform")
    if data["format"] != FORMAT:
        version = data.get("quarterdeck", "another version")
        raise ArchiveError(f"{file} was made by Quarterdeck {version} in a format that this version does not read")
    try:
        files = tuple(ArchivedFile(**each) for each in data.pop("files"))
        manifest = Manifest(files=files, **data)
    except (TypeError, KeyError) as error:
        raise ArchiveError(f"{file}: its manifest is malformed: {error}") from None
    for each in files:
        path = PurePosixPath(each.path)
        if path.is_absolute() or ".." in path.parts or each.path == MANIFEST:
            raise ArchiveError(f"{file}: {each.path!r} is no path in the state folder")
    return manifest


def _private(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mode, member.uid, member.gid, member.uname, member.gname = 0o600, 0, 0, "", ""
    return member


def _measure(file: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with file.open("rb") as source:
        while piece := source.read(_PIECE):
            digest.update(piece)
            size += len(piece)
    return size, digest.hexdigest()
