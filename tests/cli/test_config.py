"""`quarterdeck config check`."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.cli.admin_api import KEY, AdminAPI

from quarterdeck.cli import state
from quarterdeck.cli.__main__ import cli

GOOD = "models:\n  - {name: chat, endpoints: [{url: 'http://127.0.0.1:9'}]}\n"


def check(tmp_path: Path, text: str, *words: str) -> Result:
    (tmp_path / "q.yaml").write_text(text)
    return CliRunner().invoke(cli, ["config", "check", str(tmp_path / "q.yaml"), *words])


def test_a_valid_file_is_summed_up_in_a_line(tmp_path: Path) -> None:
    done = check(tmp_path, GOOD)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.endswith("q.yaml is valid: 1 models, 0 routes, 0 teams\n")


def test_each_problem_is_a_line_and_the_status_is_1(tmp_path: Path) -> None:
    text = GOOD + "gatway: {}\ncache: {max_mb: many}\n"
    done = check(tmp_path, text)
    assert (done.exit_code, done.stdout) == (1, "")
    assert sorted(done.stderr.splitlines()) == [
        "q.yaml:3: gatway: unknown setting; did you mean 'gateway'?",
        "q.yaml:4: cache.max_mb: must be a whole number, not 'many'",
    ]
    found = json.loads(check(tmp_path, text, "--json").stdout)
    assert (found["valid"], len(found["problems"])) == (False, 2)


def test_a_name_that_nothing_has_is_a_warning(tmp_path: Path) -> None:
    done = check(tmp_path, GOOD + "cache: {policies: {chatt: {}}}\n")
    assert done.exit_code == 0
    assert "did you mean 'chat'?" in done.stderr


def test_a_running_platforms_keys_are_checked_against_the_file(admin: AdminAPI, tmp_path: Path) -> None:
    (tmp_path / "q.yaml").write_text(GOOD)
    keys = [{**KEY, "models": ["chat", "chatt"]}, {**KEY, "name": "old", "models": ["gone"], "revoked": 1}]
    admin.answers["GET", "/admin/organizations"] = {"data": [{"id": "acme"}], "has_more": False}
    admin.answers["GET", "/admin/keys"] = {"data": keys, "has_more": False}
    words = ("config", "check", str(tmp_path / "q.yaml"))
    assert admin.run(*words).stderr == ""
    with state.locked(admin.state):
        done = admin.run(*words)
        warning = "key ci (acme): no model, alias, adapter or route is named 'chatt'; did you mean 'chat'?"
        assert (done.exit_code, done.stderr) == (0, f"warning: {warning}\n")
        admin.status = 503
        assert "the models of keys are not checked" in admin.run(*words).stderr


@pytest.mark.parametrize(
    "words", [("config", "check"), ("up", "--engine", "sim"), ("models", "show", "chat")], ids=" ".join
)
def test_a_configuration_that_is_not_there_is_named(words: tuple[str, ...], tmp_path: Path) -> None:
    state_folder, path = tmp_path / "state", tmp_path / "absent.yaml"
    environ = {"QUARTERDECK_STATE": str(state_folder), "QUARTERDECK_CONFIG": str(path)}
    done = CliRunner().invoke(cli, words, env=environ)
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"{path}: there is no such file; QUARTERDECK_CONFIG" in done.stderr.splitlines()[-1]
    assert not state_folder.exists()


def test_the_file_that_up_would_use_is_checked_by_default() -> None:
    assert CliRunner().invoke(cli, ["config", "check"]).exit_code == 0


def test_tools_without_a_key_and_settings_that_contradict_are_warnings(tmp_path: Path) -> None:
    server = "{label: tickets, url: 'https://example.com/mcp', api_key_env: NO_SUCH_TOKEN}"
    text = f"{GOOD}tools: {{mcp_servers: [{server}]}}\nbatches: {{idle_share: 0.1, busy_share: 0.5}}\n"
    done = check(tmp_path, text)
    assert done.exit_code == 0
    lines = done.stderr.splitlines()
    assert [line.split(":")[1].strip() for line in lines] == ["batches.busy_share", "tools.mcp_servers[tickets]"]
    assert "NO_SUCH_TOKEN is not set or empty" in lines[1]
