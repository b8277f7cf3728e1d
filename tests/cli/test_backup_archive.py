"""Archives of backups: what is verified, and what is refused."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

from quarterdeck.cli.backup_archive import MANIFEST, ArchiveError, extract, read_manifest, write

ABOUT = {"quarterdeck": "1.2.3", "created": "2026-11-30T00:00:00+00:00", "database": "sqlite", "revision": "0014"}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "one").write_bytes(b"first" * 1000)
    (tmp_path / "two").write_bytes(b"")
    write(tmp_path / "b.tar.gz", {"credentials": tmp_path / "one", "models.d/a.yaml": tmp_path / "two"}, **ABOUT)
    return tmp_path / "b.tar.gz"


def test_files_come_back_as_they_were_and_are_private(archive: Path, tmp_path: Path) -> None:
    assert archive.stat().st_mode & 0o777 == 0o600
    manifest = extract(archive, tmp_path / "out")
    assert [each.path for each in manifest.files] == ["credentials", "models.d/a.yaml"]
    assert (tmp_path / "out/credentials").read_bytes() == b"first" * 1000
    assert (tmp_path / "out/models.d/a.yaml").stat().st_mode & 0o777 == 0o600
    assert {each.name for each in tmp_path.iterdir()} == {"one", "two", "b.tar.gz", "out"}


@pytest.mark.parametrize("kept", [0.0, 0.2, 0.5, 0.7])
def test_a_cut_archive_is_refused(archive: Path, tmp_path: Path, kept: float) -> None:
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ArchiveError):
        extract(archive, tmp_path / "out")


def forge(target: Path, files: dict[str, bytes], manifest: object) -> Path:
    """An archive with another content than its manifest says."""
    with tarfile.open(target, "w:gz") as archive:
        for name, data in {MANIFEST: json.dumps(manifest).encode(), **files}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return target


def entry(path: str) -> dict[str, object]:
    return {"path": path, "size": 1, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("files", "listed", "message"),
    [
        ({"a": b"x"}, [entry("a")], "'a' is damaged"),
        ({"a": b"x"}, [], "'a' is not in its manifest"),
        ({}, [entry("a")], "'a' is missing"),
        ({"../a": b"x"}, [entry("../a")], "no path in the state folder"),
        ({"/a": b"x"}, [entry("/a")], "no path in the state folder"),
    ],
)
def test_what_the_manifest_does_not_say_is_refused(
    tmp_path: Path, files: dict[str, bytes], listed: list[object], message: str
) -> None:
    file = forge(tmp_path / "f.tar.gz", files, {"format": 1, **ABOUT, "files": listed})
    with pytest.raises(ArchiveError, match=message):
        extract(file, tmp_path / "out")


def test_other_formats_and_files_are_refused_in_words(tmp_path: Path) -> None:
    newer = forge(tmp_path / "newer.tar.gz", {}, {"format": 2, "quarterdeck": "9.0"})
    with pytest.raises(ArchiveError, match=r"Quarterdeck 9\.0 in a format"):
        read_manifest(newer)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ArchiveError, match="is no backup"):
        read_manifest(tmp_path / "text")
    with gzip.open(tmp_path / "empty.gz", "wb"):
        pass
    with pytest.raises(ArchiveError):
        read_manifest(tmp_path / "empty.gz")
    with pytest.raises(ArchiveError, match="does not exist"):
        read_manifest(tmp_path / "absent")
