"""The command `quarterdeck` (`qd`): the platform on a laptop, and its keys, models and state from a terminal.

A subcommand's module is imported when that subcommand runs. This is the one place where imports wait: `--help` is read
many times a day, and pydantic, httpx and the supervisor together cost it half a second. So the one-line helps stand in
`COMMANDS`, and a test holds them to the commands' own words.
"""

import importlib
import sys
from typing import Any

import click

COMMANDS = {
    "up": "Start the platform here and keep it up until Ctrl-C.",
    "status": "Say what of the platform runs here.",
    "keys": "Create, list, change and revoke API keys.",
    "teams": "Create, list, change and delete teams.",
    "orgs": "Create, list and change organisations.",
    "usage": "Sum up requests, tokens and money.",
    "cache": "Say what the cache holds, or make it forget.",
    "models": "List the models and whether they are ready.",
    "chat": "Talk to a model: one question, or a conversation.",
    "env": "Print the export lines that point any OpenAI client here.",
    "bench": "Measure any OpenAI-compatible endpoint, beside another one.",
    "doctor": "Say what is missing on this machine and how to get it.",
}


class LazyGroup(click.Group):
    """A group whose commands lie in modules of their own: `quarterdeck.cli.<name>`, attribute `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module: Any = importlib.import_module(f"quarterdeck.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="quarterdeck")
def cli() -> None:
    """A self-hosted OpenAI platform: models of your own behind one OpenAI-speaking gateway.

    Where things lie is set by QUARTERDECK_* variables: docs/reference/settings.md.
    """


def main() -> None:
    # A broken pipe (`quarterdeck models | head -1`) and Ctrl-C are click's; everything else we say is a ClickException.
    cli(prog_name="quarterdeck" if sys.argv[0].endswith("__main__.py") else None)


if __name__ == "__main__":
    main()
