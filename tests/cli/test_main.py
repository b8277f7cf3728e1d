"""The command group: lazy imports and help texts."""

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from quarterdeck.cli.__main__ import COMMANDS, cli


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from quarterdeck.cli.__main__ import cli; cli(['--help'], standalone_mode=False);"
        "print(sorted(m for m in sys.modules if m.partition('.')[0] in"
        " {'pydantic', 'httpx', 'sqlalchemy', 'yaml', 'asyncio', 'openai'}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "doctor" in done.stdout


def test_a_mistyped_command_is_answered_with_the_nearest() -> None:
    done = CliRunner().invoke(cli, ["stauts"])
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (
        2,
        "Error: No such command 'stauts'. Did you mean 'status'?",
    )
    assert "Did you mean" not in CliRunner().invoke(cli, ["xyzzy"]).stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_of_a_command_what_it_says_of_itself(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.short_help == COMMANDS[name]
