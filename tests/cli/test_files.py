"""`quarterdeck files`."""

from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result
from tests.cli.admin_api import AdminAPI

from quarterdeck.cli.__main__ import cli

FILE = {
    "id": "file-1",
    "object": "file",
    "bytes": 1_400_000,
    "created_at": 1_800_000_000,
    "expires_at": None,
    "filename": "notes.md",
    "purpose": "user_data",
    "status": "processed",
}


def test_a_file_is_sent_with_its_purpose_and_expiry(admin: AdminAPI, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("# Notes")
    admin.raw.add("/v1/files")
    admin.answers["POST", "/v1/files"] = FILE
    made = admin.run("files", "upload", str(tmp_path / "notes.md"), "--expires", "12h")
    assert made.stdout == "file-1 uploaded\n"
    form = admin.requests[0][2]
    assert b"user_data" in form and b"43200" in form and b"# Notes" in form and b'filename="notes.md"' in form


def test_an_expiry_that_is_no_duration_is_refused(admin: AdminAPI, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("# Notes")
    refused = admin.run("files", "upload", str(tmp_path / "notes.md"), "--expires", "soon")
    assert refused.exit_code == 2 and "not a duration" in refused.stderr and not admin.requests


def test_files_are_listed_by_purpose(admin: AdminAPI) -> None:
    admin.answers["GET", "/v1/files"] = {"object": "list", "data": [FILE], "has_more": False}
    listed = admin.run("files", "list", "--purpose", "user_data")
    assert "notes.md" in listed.stdout and "1.4 MB" in listed.stdout
    assert admin.requests[0][2]["purpose"] == "user_data"


def test_a_file_is_shown(admin: AdminAPI) -> None:
    admin.answers["GET", "/v1/files/file-1"] = {**FILE, "filename": "a\x1b[2Jb"}
    shown = admin.run("files", "show", "file-1")
    assert "user_data" in shown.stdout and "\x1b" not in shown.stdout


def test_a_file_is_deleted_when_that_is_confirmed(admin: AdminAPI) -> None:
    admin.answers["GET", "/v1/files/file-1"] = FILE
    admin.answers["DELETE", "/v1/files/file-1"] = {"id": "file-1", "object": "file", "deleted": True}
    assert admin.run("files", "delete", "file-1").exit_code == 1
    assert [method for method, _, _ in admin.requests] == ["GET"]
    assert admin.run("files", "delete", "file-1", "--yes").stdout == "file-1 deleted\n"


def downloaded(admin: AdminAPI, name: str, *words: str) -> Result:
    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/content"):
            return httpx.Response(200, content=b"# Notes")
        return httpx.Response(200, json={**FILE, "filename": name})

    environ = {"QUARTERDECK_STATE": str(admin.state)}
    return CliRunner().invoke(
        cli, ("files", "download", "file-1", *words), obj=httpx.MockTransport(handle), env=environ
    )


def test_a_content_is_written_under_the_files_name(
    admin: AdminAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert downloaded(admin, "notes.md").exit_code == 0
    assert (tmp_path / "notes.md").read_text() == "# Notes"


def test_a_file_that_exists_is_replaced_only_by_force(admin: AdminAPI, tmp_path: Path) -> None:
    path = tmp_path / "mine.md"
    path.write_text("mine")
    refused = downloaded(admin, "notes.md", "-o", str(path))
    assert refused.exit_code == 1 and "exists" in refused.stderr and path.read_text() == "mine"
    assert downloaded(admin, "notes.md", "-o", str(path), "--force").exit_code == 0
    assert path.read_text() == "# Notes"


@pytest.mark.parametrize("name", ["../up.md", "/etc/cron.d/x", ".bashrc", "a\x1b[2J", "..", ""])
def test_a_name_that_leads_elsewhere_is_not_taken(
    admin: AdminAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    refused = downloaded(admin, name)
    assert refused.exit_code == 1 and "give one with -o" in refused.stderr
    assert not list(folder.iterdir()) and not (tmp_path / "up.md").exists()
