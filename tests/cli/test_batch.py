"""`quarterdeck batch run`: sends a file, follows its batch and writes the results."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from quarterdeck.cli import batch as batch_command
from quarterdeck.cli import credentials
from quarterdeck.cli.__main__ import cli


class Gateway:
    """Answers with a batch that makes one more request at each look, and its files."""

    def __init__(self, folder: Path, *, failed: int = 0, status: str = "completed") -> None:
        (folder / "state").mkdir()
        credentials.ensure(folder / "state", "http://gateway/v1")
        self.folder, self.failed, self.status = folder, failed, status
        self.looks, self.total = 0, 3
        self.paths: list[str] = []
        self.errors: list[dict[str, Any]] = []

    def handle(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.paths.append(f"{request.method} {path}")
        if path == "/v1/files":
            return httpx.Response(200, json={"id": "file-in"})
        if path.endswith("/content"):
            return httpx.Response(200, content=b'{"custom_id":"1"}\n')
        if path.endswith("/cancel"):
            self.status, self.looks = "cancelled", self.total
        if request.method == "GET":
            self.looks += 1
        return httpx.Response(200, json=self.batch())

    def batch(self) -> dict[str, Any]:
        has_ended = self.looks >= self.total
        done = min(self.looks, self.total)
        return {
            "id": "batch_1",
            "status": self.status if has_ended else "in_progress",
            "request_counts": {"total": 3, "completed": max(0, done - self.failed), "failed": min(done, self.failed)},
            "output_file_id": "file-out" if has_ended and self.status != "failed" else None,
            "error_file_id": "file-err" if has_ended and self.failed else None,
            "errors": {"object": "list", "data": self.errors} if self.errors else None,
        }

    def run(self, *words: str) -> Result:
        source = self.folder / "requests.jsonl"
        source.write_text("{}\n")
        environ = {"QUARTERDECK_STATE": str(self.folder / "state")}
        return CliRunner().invoke(
            cli, ["batch", "run", str(source), *words], obj=httpx.MockTransport(self.handle), env=environ
        )


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_command, "POLL_SECONDS", 0.0)


def test_the_output_is_written_beside_the_input(tmp_path: Path) -> None:
    done = Gateway(tmp_path).run()
    assert done.exit_code == 0, done.output
    assert (tmp_path / "requests.output.jsonl").read_bytes() == b'{"custom_id":"1"}\n'
    assert "batch_1 completed: 3 of 3" in done.stdout
    assert not (tmp_path / "requests.errors.jsonl").exists() and not list(tmp_path.glob("*.part"))


def test_failed_requests_have_a_file_and_an_exit_code(tmp_path: Path) -> None:
    done = Gateway(tmp_path, failed=1).run("-o", str(tmp_path / "out.jsonl"))
    assert done.exit_code == 1
    assert (tmp_path / "out.jsonl").exists() and (tmp_path / "out.errors.jsonl").exists()
    assert "3 of 3, 1 failed" in done.stdout


@pytest.mark.parametrize("words", [(), ("--ray",)])
def test_results_never_replace_the_input(tmp_path: Path, words: tuple[str, ...]) -> None:
    gateway = Gateway(tmp_path)
    done = gateway.run("-o", str(tmp_path / "requests.jsonl"), *words)
    assert done.exit_code == 1 and "is the input" in done.stderr
    assert (tmp_path / "requests.jsonl").read_text() == "{}\n" and gateway.paths == []
    source = tmp_path / "a.errors.jsonl"
    source.write_text("{}\n")
    environ = {"QUARTERDECK_STATE": str(tmp_path / "state")}
    words = ("batch", "run", str(source), "-o", str(tmp_path / "a.output.jsonl"), *words)
    done = CliRunner().invoke(cli, words, obj=httpx.MockTransport(gateway.handle), env=environ)
    assert done.exit_code == 1 and "is the input" in done.stderr and source.exists()


def test_a_batch_that_failed_says_why(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, status="failed")
    gateway.errors = [{"line": 2, "code": "x", "message": "not JSON", "param": None}]
    done = gateway.run()
    assert done.exit_code == 1 and "line 2: not JSON" in done.stderr


def test_ctrl_c_cancels_and_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway, slept = Gateway(tmp_path), []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(batch_command.time, "sleep", sleep)
    done = gateway.run()
    assert done.exit_code == 1
    assert "POST /v1/batches/batch_1/cancel" in gateway.paths
    assert "batch_1 cancelled" in done.stdout and (tmp_path / "requests.output.jsonl").exists()


def test_a_gateway_that_is_away_is_waited_for(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    handle, away = gateway.handle, [True, True]

    def sometimes(request: httpx.Request) -> httpx.Response:
        if request.method == "GET" and away:
            away.pop()
            raise httpx.ConnectError("refused")
        return handle(request)

    gateway.handle = sometimes  # type: ignore[method-assign]
    assert gateway.run().exit_code == 0


def test_the_batch_is_shown_as_json(tmp_path: Path) -> None:
    shown = json.loads(Gateway(tmp_path).run("--json").stdout)
    assert shown["status"] == "completed"
    assert shown["written"] == {"output_file_id": str(tmp_path / "requests.output.jsonl")}


def test_an_output_that_can_not_be_written_is_refused_before_the_batch(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    done = gateway.run("-o", str(tmp_path / "nowhere" / "out.jsonl"))
    assert (done.exit_code, gateway.paths) == (1, [])
    assert done.stderr == f"Error: cannot write {tmp_path}/nowhere/out.jsonl: there is no folder {tmp_path}/nowhere\n"
