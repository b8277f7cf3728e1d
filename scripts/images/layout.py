"""Writes images of buildah's store as one OCI archive, each layer once.

`buildah push` compresses every layer of every image again: 20 s for an image whose last 10 kB are new. Here a layer is
packed once, into a cache named by the store's layer id, and an archive of ten images that share a base is that base and
ten small layers. Needs root and the overlay driver, as `Buildah` in `builders.py` does.
"""

import contextlib
import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
import time
from pathlib import Path

from images.programs import BuildError

STORE = Path("/var/lib/containers/storage")
UNUSED_DAYS = 3
"""A layer that was in no archive for so long is removed from the cache; it is packed again when needed."""
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def cache_folder() -> Path:
    """Where base images and layers are kept, as in `settings/environment.py`."""
    if value := os.environ.get("QUARTERDECK_CACHE"):
        return Path(value).expanduser().absolute() / "images"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "quarterdeck/images"


class Layers:
    """Layers of the store as compressed blobs, cached."""

    def __init__(self, folder: Path) -> None:
        self._blobs = folder / "blobs"
        self._known = folder / "layers"
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._known.mkdir(parents=True, exist_ok=True)

    def blob(self, layer: str) -> tuple[Path, dict[str, str | int]]:
        """The layer's blob, and `{"digest", "diff_id", "size"}`."""
        note = self._known / layer
        if note.exists():
            found: dict[str, str | int] = json.loads(note.read_text(encoding="utf-8"))
            file = self._blobs / str(found["digest"]).removeprefix("sha256:")
            if file.exists():
                os.utime(file)
                os.utime(note)
                return file, found
        unpacked = _Digesting(self._blobs / f"new-{os.getpid()}-{layer}")
        with unpacked, tarfile.open(fileobj=unpacked, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            pack(STORE / "overlay" / layer / "diff", archive)
        file = self._blobs / unpacked.digest
        unpacked.path.replace(file)
        found = {
            "digest": f"sha256:{unpacked.digest}",
            "diff_id": f"sha256:{unpacked.diff_id}",
            "size": file.stat().st_size,
        }
        fresh = note.with_name(f"new-{os.getpid()}-{layer}")
        fresh.write_text(json.dumps(found), encoding="utf-8")
        fresh.replace(note)
        return file, found

    def prune(self) -> None:
        """Remove what was not used for UNUSED_DAYS."""
        oldest = time.time() - UNUSED_DAYS * 86400
        for file in [*self._blobs.iterdir(), *self._known.iterdir()]:
            with contextlib.suppress(FileNotFoundError):  # another build renames its new files
                if file.stat().st_mtime < oldest:
                    file.unlink()


class _Digesting(io.RawIOBase):
    """A file that is compressed as it is written, with the digest before and after."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb+")
        self._gzip = gzip.GzipFile(fileobj=self._file, mode="wb", compresslevel=1, mtime=0, filename="")
        self._plain = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        view = memoryview(data)  # type: ignore[arg-type] # any buffer
        self._plain.update(view)
        self._gzip.write(view)
        return len(view)

    def close(self) -> None:
        if not self.closed:
            self._gzip.close()
            self._file.seek(0)
            self.digest = hashlib.file_digest(self._file, "sha256").hexdigest()
            self.diff_id = self._plain.hexdigest()
            self._file.close()
        super().close()


def pack(folder: Path, archive: tarfile.TarFile) -> None:
    """Add an overlay layer's folder to an archive: OCI's whiteouts for overlayfs' own, no times."""
    for root, folders, files in os.walk(folder):
        here = Path(root)
        folders.sort()
        if here != folder:
            _add(archive, here, folder)
            if _attribute(here, "trusted.overlay.opaque") == b"y":
                _add_whiteout(archive, here.relative_to(folder) / ".wh..wh..opq")
        for name in sorted([*files, *(one for one in folders if (here / one).is_symlink())]):
            file = here / name
            status = file.lstat()
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                _add_whiteout(archive, (here / f".wh.{name}").relative_to(folder))
            else:
                _add(archive, file, folder)


def _add(archive: tarfile.TarFile, path: Path, folder: Path) -> None:
    for attribute in ("trusted.overlay.redirect", "trusted.overlay.metacopy"):
        if _attribute(path, attribute) is not None:
            raise BuildError(f"{path} refers to a lower layer ({attribute}): set metacopy=off in storage.conf")
    entry: tarfile.TarInfo | None = archive.gettarinfo(path, arcname=str(path.relative_to(folder)))
    if entry is None:  # a socket, which typeshed forgets
        return
    entry.mtime, entry.uname, entry.gname = 0, "", ""
    if entry.isreg():
        with path.open("rb") as content:
            archive.addfile(entry, content)
    else:
        archive.addfile(entry)


def _add_whiteout(archive: tarfile.TarFile, name: Path) -> None:
    archive.addfile(tarfile.TarInfo(str(name)))


def _attribute(path: Path, name: str) -> bytes | None:
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError:
        return None


def write_archive(references: list[str], archive: Path) -> dict[str, str]:
    """Write these images of the store into one archive. Returns the digest of each manifest."""
    layers = Layers(cache_folder())
    index: list[dict[str, object]] = []
    written: set[str] = set()
    digests: dict[str, str] = {}
    with tarfile.open(archive, "w") as out:

        def add(content: bytes) -> str:
            digest = hashlib.sha256(content).hexdigest()
            if digest not in written:
                written.add(digest)
                entry = tarfile.TarInfo(f"blobs/sha256/{digest}")
                entry.size = len(content)
                out.addfile(entry, io.BytesIO(content))
            return f"sha256:{digest}"

        for reference in references:
            config, chain = _stored(reference)
            listed, diff_ids = [], []
            for layer in chain:
                file, known = layers.blob(layer)
                if file.name not in written:
                    written.add(file.name)
                    out.add(file, arcname=f"blobs/sha256/{file.name}")
                listed.append({"mediaType": LAYER, "digest": known["digest"], "size": known["size"]})
                diff_ids.append(known["diff_id"])
            config["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
            encoded = json.dumps(config, sort_keys=True).encode()
            manifest = json.dumps(
                {
                    "schemaVersion": 2,
                    "mediaType": MANIFEST,
                    "config": {"mediaType": CONFIG, "digest": add(encoded), "size": len(encoded)},
                    "layers": listed,
                }
            ).encode()
            digests[reference] = add(manifest)
            names = {"org.opencontainers.image.ref.name": reference, "io.containerd.image.name": reference}
            index.append(
                {"mediaType": MANIFEST, "digest": digests[reference], "size": len(manifest), "annotations": names}
            )
        for name, document in (
            ("oci-layout", {"imageLayoutVersion": "1.0.0"}),
            ("index.json", {"schemaVersion": 2, "manifests": index}),
        ):
            content = json.dumps(document).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            out.addfile(entry, io.BytesIO(content))
    layers.prune()
    return digests


def _stored(reference: str) -> tuple[dict[str, object], list[str]]:
    """An image's configuration and its layers, lowest first. Raises BuildError."""
    try:
        images = json.loads((STORE / "overlay-images/images.json").read_text(encoding="utf-8"))
        parents = {
            layer["id"]: layer.get("parent")
            for layer in json.loads((STORE / "overlay-layers/layers.json").read_text(encoding="utf-8"))
        }
    except (OSError, ValueError) as error:
        raise BuildError(f"buildah's store can't be read: {error}") from error
    image = next((one for one in images if reference in (one.get("names") or ())), None)
    if image is None:
        raise BuildError(f"{reference} is not in buildah's store")
    manifest = json.loads((STORE / "overlay-images" / image["id"] / "manifest").read_text(encoding="utf-8"))
    config = json.loads(_big_data(image["id"], manifest["config"]["digest"]))
    chain: list[str] = []
    layer: str | None = image["layer"]
    while layer:
        chain.insert(0, layer)
        layer = parents[layer]
    return config, chain


def _big_data(image: str, key: str) -> str:
    """A file of the store that is named by a digest: the store writes such names in base 64."""
    import base64

    return (STORE / "overlay-images" / image / f"={base64.b64encode(key.encode()).decode()}").read_text(
        encoding="utf-8"
    )
