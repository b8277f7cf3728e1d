"""The command `quarterdeck` (`qd`): runs the platform on a laptop and manages keys, models and state.

The module of a subcommand is imported only when the subcommand runs: pydantic, httpx and the supervisor would add half
a second to `--help`. Therefore `COMMANDS` repeats the short help texts, and a test keeps them equal.
"""

import dataclasses
import importlib
import os
import sys
from pathlib import Path
from typing import Any

import click

from quarterdeck.cli import safe_output

COMMANDS = {
    "up": "Start the platform and run it until Ctrl-C.",
    "down": "Stop the platform on this machine.",
    "restart": "Restart the platform on this machine.",
    "status": "Show the state of the platform.",
    "logs": "Show the logs of the platform on this machine.",
    "context": "Save, list and switch between platforms.",
    "keys": "Create, list, update and revoke API keys.",
    "teams": "Create, list, update and delete teams.",
    "orgs": "Create, list, update and delete organisations.",
    "prompts": "Manage prompts, versions, labels and rollouts.",
    "usage": "Show requests, tokens and cost.",
    "requests": "Search, show, follow and export requests.",
    "feedback": "Score requests; list and delete scores.",
    "files": "Upload, list, show, download and delete files.",
    "batches": "Create, list, show and cancel batches of requests.",
    "batch": "Execute a file of requests and write its results.",
    "webhooks": "Send events, such as budget alerts, to URLs.",
    "cache": "Show or purge the response cache.",
    "models": "List, add, pull, stop and remove models.",
    "chat": "Chat with a model.",
    "ask": "Ask an agent with weather and stock tools.",
    "env": "Print shell exports that configure OpenAI clients.",
    "setup": "Create the environments and programs that `up` needs.",
    "config": "Check a configuration file.",
    "completion": "Print a completion script for bash, zsh or fish.",
    "service": "Run the platform as a systemd service.",
    "backup": "Back up the platform on this machine, and restore it.",
    "images": "List, save and load the chart's images, for clusters without Internet.",
    "bench": "Benchmark an OpenAI-compatible endpoint.",
    "doctor": "Check this machine, or a cluster, for missing requirements.",
}
LOCAL = ("up", "down", "restart", "logs", "setup", "service", "backup", "config", "bench", "images")
"""Commands for this machine alone."""
NO_TARGET = (*LOCAL, "completion", "context")
"""Commands that ask no platform."""


class LazyGroup(click.Group):
    """A group that loads each command from `quarterdeck.cli.<name>`, attribute `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module: Any = importlib.import_module(f"quarterdeck.cli.{cmd_name}")
        command: click.Command = module.command
        if cmd_name not in NO_TARGET:
            accept_target_options(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, which does not know the names of commands that are not loaded: `did you mean`."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            close = importlib.import_module("difflib").get_close_matches(name, COMMANDS, 1)
            raise click.UsageError(f"No such command '{name}'.{f' Did you mean {close[0]!r}?' if close else ''}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def accept_target_options(command: click.Command) -> None:
    """Let the options that name a platform follow the command as well, where it has no option of the same name (`usage
    --key` is a filter)."""
    if isinstance(command, click.Group):
        for each in command.commands.values():
            accept_target_options(each)
        return
    own = {name for param in command.params for name in param.opts}
    for name, kind in (("url", None), ("key", None), ("key_file", _KEY_FILE), ("context", None)):
        option = f"--{name.replace('_', '-')}"
        if option not in own:
            command.params.append(
                click.Option(
                    [f"{_PREFIX}{name}", option],
                    type=kind,
                    hidden=True,
                    expose_value=False,
                    callback=_keep_target_option,
                )
            )


def _keep_target_option(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value is not None:
        target: Any = importlib.import_module("quarterdeck.cli.target")
        before = ctx.meta.get(target.META, target.Target())
        ctx.meta[target.META] = dataclasses.replace(before, **{str(param.name).removeprefix(_PREFIX): value})
        ctx.meta[target.META].check()


_PREFIX = "target_"
"""Of the parameters' names: a command may have an argument `key`."""
_KEY_FILE = click.Path(path_type=Path, dir_okay=False, allow_dash=True)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="quarterdeck")
@click.option("--url", help="Use the platform at this URL of a gateway.")
@click.option("--key", help="A key of that platform. Other users can see it while a command runs: see --key-file.")
@click.option(
    "--key-file",
    metavar="FILE",
    type=_KEY_FILE,
    help="File with a key of that platform; - is standard input.",
)
@click.option(
    "--context",
    metavar="NAME",
    help="Use this saved context (`quarterdeck context`), or the release in the cluster of this kubeconfig context.",
)
@click.option(
    "--namespace", "-n", metavar="NAME", help="Namespace of the release. Default: the context's, or the only one."
)
@click.option("--release", metavar="NAME", help="Name of the release, if a namespace has several.")
@click.pass_context
def cli(ctx: click.Context, /, **options: Any) -> None:
    """A self-hosted OpenAI platform: your own models behind an OpenAI-compatible gateway.

    Commands use the platform on this machine, unless --url, QUARTERDECK_URL (with QUARTERDECK_KEY) or a saved context
    names one elsewhere, or --context, --namespace or --release one in a cluster (through kubectl and a port-forward).
    --url, --key, --key-file and --context may follow the command.

    Folders, ports and addresses are set by QUARTERDECK_* variables: docs/reference/settings.md.
    """
    if os.environ.get("NO_COLOR"):
        ctx.color = False
    if any(value is not None for value in options.values()):
        target: Any = importlib.import_module("quarterdeck.cli.target")
        ctx.meta[target.META] = chosen = target.Target(**options)
        chosen.check()
        if ctx.invoked_subcommand in LOCAL:
            raise click.UsageError(f"`{ctx.invoked_subcommand}` works on this machine only")


def main() -> None:
    safe_output.install()
    # click handles broken pipes (`quarterdeck models | head -1`) and Ctrl-C; other errors are ClickExceptions.
    cli(prog_name="quarterdeck" if sys.argv[0].endswith("__main__.py") else None)


if __name__ == "__main__":
    main()
