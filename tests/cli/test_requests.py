"""`quarterdeck requests`: tables, details, exports and a live view."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from tests.cli.admin_api import AdminAPI
from tests.records import a_record

from quarterdeck.cli import requests
from quarterdeck.cli.__main__ import cli
from quarterdeck.content import Content
from quarterdeck.errors import AuthenticationError, ServiceUnavailableError
from quarterdeck.protocol import sse
from quarterdeck.resources.requests.objects import request_detail, request_object

RECORD = a_record(status="error", error_code="engine_error", user="u\x1b[2J")
DETAIL = request_detail(
    RECORD,
    Content(
        level="full",
        input=b'{"messages":[{"role":"user","content":"Hi \\u001b[2J"}]}',
        output=b'[{"index":0,"text":"Hello"}]',
        is_output_cut=True,
        redacted={"email": 2},
    ),
)


def a_page(*found: dict[str, Any], has_more: bool = False, last: str | None = None) -> dict[str, Any]:
    return {"object": "list", "data": list(found), "has_more": has_more, "last_id": last or RECORD.id, "first_id": None}


def test_a_list_is_a_table_and_prints_no_escape_of_a_callers(admin: AdminAPI) -> None:
    admin.answers["GET", "/admin/requests"] = a_page(request_object(RECORD))
    result = admin.run("requests", "list", "--model", "m", "--failed", "--start", "1970-01-02", "--min-cost", "0.5")
    head, line = result.stdout.splitlines()
    assert head.split()[:4] == ["TIME", "REQUEST", "STATUS", "MODEL"]
    assert RECORD.id in line and "error engine_error" in line and "$0.0000099" in line
    assert "\x1b" not in result.stdout
    query = {"model": "m", "failed": "true", "start": "86400", "min_cost": "0.5", "limit": "20"}
    assert admin.requests == [("GET", "/admin/requests", query)]


def test_a_list_says_on_stderr_that_there_is_nothing(admin: AdminAPI) -> None:
    admin.answers["GET", "/admin/requests"] = a_page(has_more=False)
    result = admin.run("requests", "list")
    assert (result.stdout, result.stderr) == ("", "no requests\n")


def test_one_request_is_shown_with_its_attempts_and_content(admin: AdminAPI) -> None:
    admin.answers["GET", f"/admin/requests/{RECORD.id}"] = DETAIL
    text = admin.run("requests", "show", RECORD.id).stdout
    assert "attempt 2" in text and "smollm2#1" in text
    assert "input (0 bytes)" in text and "output (0 bytes, cut)" in text
    assert "redacted: email 2" in text
    assert "\x1b" not in text


def test_an_export_has_no_controls_and_reads_as_it_was(admin: AdminAPI) -> None:
    found = {**request_object(RECORD), "user": "a\x9b2J\x7f\u202eb"}
    admin.answers["GET", "/admin/requests"] = a_page(found)
    text = admin.run("requests", "export", "-").stdout
    assert not {"\x9b", "\x7f", "\u202e"} & set(text)
    assert json.loads(text) == json.loads(json.dumps(found))


def test_json_is_the_apis_answer(admin: AdminAPI) -> None:
    admin.answers["GET", f"/admin/requests/{RECORD.id}"] = DETAIL
    assert json.loads(admin.run("requests", "show", RECORD.id, "--json").stdout) == json.loads(json.dumps(DETAIL))


def test_contents_are_deleted_after_a_question(admin: AdminAPI) -> None:
    admin.answers["DELETE", "/admin/contents"] = {"object": "content.deletion", "deleted": 3}
    assert "deleted 3 contents" in admin.run("requests", "delete-contents", "--user", "u", "--yes").stdout
    assert admin.requests == [("DELETE", "/admin/contents", {"user": "u"})]
    assert admin.run("requests", "delete-contents", "--user", "u").exit_code == 1  # nobody answered
    assert admin.run("requests", "delete-contents", "--user", "u", "--session", "s", "--yes").exit_code == 2
    assert len(admin.requests) == 1


# with pages and streams, which the fake does not have


class Server:
    """Answers with what `handler` returns."""

    def __init__(self, handler: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        from quarterdeck.cli import credentials

        credentials.ensure(tmp_path, "http://gateway/v1")
        monkeypatch.setenv("QUARTERDECK_STATE", str(tmp_path))
        self._transport = httpx.MockTransport(handler)

    def run(self, *arguments: str) -> Any:
        return CliRunner().invoke(cli, list(arguments), obj=self._transport)


@pytest.fixture
def three_pages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    """250 requests; the second page is empty, as of a search for a text that found nothing there."""
    everything = [request_object(a_record(id=f"req_{n:032x}")) for n in range(200)]

    def handler(request: httpx.Request) -> httpx.Response:
        after = request.url.params.get("after")
        pages = {
            None: (everything[:100], "cursor_1"),
            "cursor_1": ([], "cursor_2"),
            "cursor_2": (everything[100:], "x"),
        }
        data, last = pages[after]
        return httpx.Response(200, json=a_page(*data, has_more=last != "x", last=last))

    return Server(handler, monkeypatch, tmp_path)


def test_an_export_goes_through_all_pages(three_pages: Server, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    result = three_pages.run("requests", "export", str(path))
    assert result.exit_code == 0, result.output
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == [f"req_{n:032x}" for n in range(200)]
    assert "exported 200 requests" in result.stderr


@pytest.mark.parametrize("name", ["nowhere/log.jsonl", "file/log.jsonl"])
def test_an_export_that_can_not_be_written_is_one_line(name: str, three_pages: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = three_pages.run("requests", "export", str(tmp_path / name))
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"Error: cannot write {tmp_path / name}: ")


def test_an_export_to_standard_output_is_jsonl(three_pages: Server) -> None:
    assert len(three_pages.run("requests", "export", "-").stdout.splitlines()) == 200


def test_parquet_without_pyarrow_is_one_line_that_says_what_to_install(
    three_pages: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = three_pages.run("requests", "export", str(tmp_path / "out.parquet"))
    assert result.exit_code == 1
    assert "pip install 'quarterdeck[parquet]'" in result.stderr


def test_a_tail_reconnects_where_it_was_and_shows_gaps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[str | None] = []
    data = json.dumps(request_object(RECORD))

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("last-event-id"))
        if len(seen) == 1:
            return httpx.Response(200, text=f": following\n\nid: 5-1\ndata: {data}\n\n")
        if len(seen) == 2:
            raise httpx.ConnectError("refused")
        if len(seen) == 3:
            return httpx.Response(200, text=f"event: gap\ndata: {{}}\n\nid: 5-2\ndata: {data}\n\n")
        return httpx.Response(403, json={"error": {"message": "This endpoint requires an admin key."}})

    monkeypatch.setattr(requests, "RETRY_SECONDS", 0.0)
    result = Server(handler, monkeypatch, tmp_path).run("requests", "tail", "--model", "m")
    assert seen == [None, "5-1", "5-1", "5-2"]
    lines = result.stdout.splitlines()
    assert len(lines) == 3 and lines[0].split()[0] == "TIME"
    assert lines[1].index(RECORD.id) == lines[0].index("REQUEST")
    assert "some requests are missing" in result.stderr
    assert "reconnecting" in result.stderr
    assert result.exit_code == 1 and "requires an admin key" in result.stderr


def test_a_tail_ends_with_a_revoked_key_and_goes_on_after_a_shutdown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    errors = [ServiceUnavailableError("The gateway is shutting down."), AuthenticationError("The key was revoked.")]
    left = iter(errors)

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=b": following\n\n" + sse.error_event(next(left)))

    monkeypatch.setattr(requests, "RETRY_SECONDS", 0.0)
    result = Server(handler, monkeypatch, tmp_path).run("requests", "tail")
    assert "shutting down.; reconnecting" in result.stderr
    assert result.exit_code == 1 and "The key was revoked." in result.stderr
    assert result.stdout == ""
