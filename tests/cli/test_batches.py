"""`quarterdeck batches`."""

from pathlib import Path

from tests.cli.admin_api import AdminAPI

BATCH = {
    "id": "batch_1",
    "object": "batch",
    "endpoint": "/v1/chat/completions",
    "model": "chat",
    "errors": None,
    "input_file_id": "file-1",
    "completion_window": "24h",
    "status": "in_progress",
    "output_file_id": None,
    "error_file_id": None,
    "created_at": 1_800_000_000,
    "request_counts": {"total": 1000, "completed": 809, "failed": 3},
}


def test_a_file_is_sent_and_a_batch_made_of_it(admin: AdminAPI, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("{}\n")
    admin.raw.add("/v1/files")
    admin.answers["POST", "/v1/files"] = {"id": "file-1"}
    admin.answers["POST", "/v1/batches"] = BATCH
    made = admin.run("batches", "create", str(tmp_path / "in.jsonl"), "--window", "1h")
    assert made.stdout == "batch_1 created\n"
    body = {"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "1h"}
    assert admin.requests[1][2] == body
    assert b'name="purpose"\r\n\r\nbatch' in admin.requests[0][2]


def test_batches_are_listed_with_their_progress(admin: AdminAPI) -> None:
    admin.answers["GET", "/v1/batches"] = {"object": "list", "data": [BATCH], "has_more": False}
    listed = admin.run("batches", "list")
    assert "812 of 1000, 3 failed" in listed.stdout and "batch_1" in listed.stdout


def test_the_errors_of_a_batch_are_shown(admin: AdminAPI) -> None:
    error = {"line": 2, "code": "duplicate_custom_id", "message": "twice\x1b[2J", "param": None}
    found = {**BATCH, "status": "failed", "errors": {"object": "list", "data": [error]}}
    admin.answers["GET", "/v1/batches/batch_1"] = found
    shown = admin.run("batches", "show", "batch_1")
    assert "duplicate_custom_id" in shown.stdout and "\x1b" not in shown.stdout


def test_a_batch_is_cancelled(admin: AdminAPI) -> None:
    admin.answers["POST", "/v1/batches/batch_1/cancel"] = {**BATCH, "status": "cancelling"}
    assert admin.run("batches", "cancel", "batch_1").stdout == "batch_1 cancelling\n"
