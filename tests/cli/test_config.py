"""`quarterdeck config check`."""

import json
from pathlib import Path

from click.testing import CliRunner, Result

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


def test_the_file_that_up_would_use_is_checked_by_default() -> None:
    assert CliRunner().invoke(cli, ["config", "check"]).exit_code == 0
