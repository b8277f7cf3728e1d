"""The storage of files is tried out before the first upload fails."""

import os
from pathlib import Path

import pytest
from tests.platform import free_port

from quarterdeck.cli import storage_checks
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.file_storage import FilesConfig


def test_a_folder_that_is_not_there_yet_is_not_made(tmp_path: Path) -> None:
    environment = Environment.read({"QUARTERDECK_STATE": str(tmp_path / "state")})
    found = storage_checks.storage(environment, FilesConfig())
    assert found.mark == "ok" and str(tmp_path / "state" / "blobs") in found.what
    assert list(tmp_path.iterdir()) == []


def test_a_quota_above_the_free_space_is_a_note_where_it_was_chosen(tmp_path: Path) -> None:
    found = storage_checks.folder(tmp_path, FilesConfig(max_gb_per_org=10**9))
    assert found.mark == "note" and "files.max_gb_per_org" in found.what


def test_a_path_that_is_no_folder_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert storage_checks.folder(tmp_path / "file" / "blobs", FilesConfig()).mark == "missing"


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_can_not_be_written_is_missing(tmp_path: Path) -> None:
    (tmp_path / "ro").mkdir(mode=0o500)
    assert storage_checks.folder(tmp_path / "ro", FilesConfig()).mark == "missing"


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("ftp://x", "path of a folder, or s3://"),
        ("s3://bucket?endpoint=http://127.0.0.1:PORT", "credentials"),
    ],
)
def test_an_address_that_does_not_work_is_missing(
    address: str, text: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    address = address.replace("PORT", str(free_port()))
    found = storage_checks.storage(Environment.read({"QUARTERDECK_BLOBS": address}), FilesConfig())
    assert found.mark == "missing" and text in found.how
    assert "canary" not in found.how and capfd.readouterr().err == ""
