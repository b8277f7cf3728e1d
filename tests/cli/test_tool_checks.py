"""Keys and OpenAPI documents of tools are checked without calling a server; tests/tools asks real ones."""

from pathlib import Path
from typing import Any

import pytest

from quarterdeck.cli import tool_checks
from quarterdeck.settings.tools import ToolsConfig

MCP = {"label": "tickets", "url": "https://example.com/mcp"}
SPEC = {
    "openapi": "3.1.0",
    "info": {"title": "x", "version": "1"},
    "servers": [{"url": "https://example.com"}],
    "paths": {"/a": {"get": {"operationId": "getA"}}},
}


def tools(**fields: Any) -> ToolsConfig:
    return ToolsConfig.model_validate(fields)


def test_tools_that_can_be_used_have_no_problem(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret\n")
    api = {"label": "api", "spec": SPEC, "operations": ["getA"], "api_key_file": str(tmp_path / "key")}
    config = tools(mcp_servers=[{**MCP, "api_key_env": "TOKEN"}], http_apis=[api])
    assert tool_checks.problems(config, {"TOKEN": "x"}, tmp_path) == []
    found = tool_checks.check(tools(http_apis=[api]), {}, tmp_path)
    assert [(each.mark, each.what) for each in found] == [("ok", "HTTP API api: 1 operations")]


@pytest.mark.parametrize(
    ("kind", "changes", "text"),
    [
        ("mcp_servers", {"api_key_env": "TOKEN"}, "no API key: environment variable TOKEN is not set or empty"),
        ("mcp_servers", {"api_key_file": "/none"}, "no API key: api_key_file /none can't be read: No such file"),
        ("http_apis", {"spec": "none.yaml"}, "its OpenAPI document can't be used: can't read"),
        ("http_apis", {"spec": "bad.yaml"}, "its OpenAPI document can't be used: "),
        ("http_apis", {"operations": ["getB"]}, "no operation with the operationId 'getB'"),
    ],
)
def test_what_makes_requests_fail_is_named(tmp_path: Path, kind: str, changes: Any, text: str) -> None:
    (tmp_path / "bad.yaml").write_text("{")
    server = MCP if kind == "mcp_servers" else {"label": "tickets", "spec": SPEC, "operations": ["getA"]}
    config = tools(**{kind: [{**server, **changes}]})
    (line,) = tool_checks.problems(config, {}, tmp_path)
    assert line.startswith(f"tools.{kind}[tickets]: ") and text in line
    (found,) = tool_checks.check(config, {}, tmp_path)
    assert (found.mark, found.what) == ("note", line) and found.how


def test_a_key_in_the_url_of_a_server_is_not_shown() -> None:
    closed = {"label": "search", "url": "http://127.0.0.1:1/mcp?api_key=secret"}
    (found,) = tool_checks.check(tools(mcp_servers=[closed], list_timeout_seconds=5), {}, Path())
    assert found.mark == "note" and "http://127.0.0.1:1/mcp?…" in found.what
    assert "secret" not in f"{found.what}{found.how}"
