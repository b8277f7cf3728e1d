"""Shell completion: the scripts, and the names that are asked of the platform."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from tests.cli.admin_api import KEY

from quarterdeck.cli.__main__ import cli

IDS = {
    "/admin/adapters": "pirate",
    "/v1/files": "file-1",
    "/v1/batches": "batch_1",
    "/admin/webhooks": "wh_1",
    "/admin/requests": "req_1",
    "/admin/scores": "score_1",
}
URL = ["--url", "http://gateway", "--key", "sk-x"]


def complete(args: list[str], incomplete: str, status: int = 200) -> list[str]:
    """What the shell is offered by a platform with a key `ci`, a revoked key, and two models."""
    keys = [KEY, {**KEY, "name": "old", "revoked": 1}]
    data = {
        "/admin/keys": keys,
        "/v1/models": [{"id": "chat"}, {"id": "embed"}, {"id": "$(reboot)"}],
        "/admin/teams": [{"id": "red"}],
        "/v1/prompts": [{"id": "prompt_1", "name": "greet"}],
        **{path: [{"id": id}] for path, id in IDS.items()},
    }

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, json={"data": data[request.url.path]})

    shell = ShellComplete(cli, {"obj": httpx.MockTransport(answer)}, "quarterdeck", "_QUARTERDECK_COMPLETE")
    return [item.value for item in shell.get_completions(args, incomplete)]


def test_commands_and_options_are_completed() -> None:
    assert complete([], "co") == ["context", "config", "completion"]
    assert "--follow" in complete(["logs"], "--f")
    assert complete(["completion"], "f") == ["fish"]


def test_names_of_keys_models_and_teams_are_completed() -> None:
    assert complete([*URL, "keys", "revoke"], "") == ["ci"]
    assert complete([*URL, "chat", "-m"], "c") == ["chat"]
    assert complete([*URL, "keys", "create", "x", "--team"], "") == ["red"]
    assert complete([*URL, "requests", "list", "--model"], "e") == ["embed"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        *((f"models {verb}", "chat") for verb in ("show", "update", "remove", "stop", "start", "adapters list")),
        ("models adapters remove", "pirate"),
        *((f"prompts {verb}", "greet") for verb in ("show", "render", "label", "split", "rollback", "events")),
        ("ask --prompt", "greet"),
        *((f"files {verb}", "file-1") for verb in ("show", "download", "delete")),
        *((f"batches {verb}", "batch_1") for verb in ("show", "cancel")),
        *((f"webhooks {verb}", "wh_1") for verb in ("show", "update", "rotate", "test", "delete")),
        *((words, "req_1") for words in ("requests show", "feedback create")),
        ("feedback delete", "score_1"),
    ],
)
def test_names_and_ids_of_other_objects_are_completed(words: str, found: str) -> None:
    assert complete([*URL, *words.split()], found[:2]) == [found]


def test_a_name_that_a_shell_would_run_is_not_completed() -> None:
    assert complete([*URL, "chat", "-m"], "") == ["chat", "embed"]


def test_a_platform_that_refuses_or_is_away_completes_nothing() -> None:
    assert complete([*URL, "keys", "revoke"], "", status=401) == []
    shell = ShellComplete(cli, {}, "quarterdeck", "_QUARTERDECK_COMPLETE")
    assert shell.get_completions(["--url", "http://127.0.0.1:9", "--key", "x", "keys", "revoke"], "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_completes_both_names_of_the_program(shell: str) -> None:
    done = CliRunner().invoke(cli, ["completion", shell])
    assert done.exit_code == 0, done.output
    assert "_QUARTERDECK_COMPLETE" in done.stdout and "_QD_COMPLETE" in done.stdout
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=done.stdout, text=True, check=True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not here")
def test_bash_completes_a_command(tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "quarterdeck"
    text = f"""
eval "$({program} completion bash)"
COMP_WORDS=(quarterdeck key) COMP_CWORD=1
_quarterdeck_completion {program}
echo "${{COMPREPLY[@]}}"
"""
    environ = {**os.environ, "QUARTERDECK_STATE": str(tmp_path)}
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True, env=environ)
    assert done.stdout == "keys\n", done.stderr
