"""The command `quarterdeck` (`qd`): runs the platform on a laptop and manages keys, models and state.

The module of a subcommand is imported only when the subcommand runs: pydantic, httpx and the supervisor would add half
a second to `--help`. Therefore `COMMANDS` repeats the short help texts, and a test keeps them equal.
"""

import importlib
import sys
from pathlib import Path
from typing import Any

import click

COMMANDS = {
    "up": "Start the platform and run it until Ctrl-C.",
    "status": "Show the state of the platform on this machine.",
    "keys": "Create, list, update and revoke API keys.",
    "teams": "Create, list, update and delete teams.",
    "orgs": "Create, list and update organisations.",
    "prompts": "Manage prompts, versions, labels and rollouts.",
    "usage": "Show requests, tokens and cost.",
    "requests": "Search, show, follow and export requests.",
    "feedback": "Score requests; list and delete scores.",
    "webhooks": "Send events, such as budget alerts, to URLs.",
    "cache": "Show or purge the response cache.",
    "models": "List models and their state.",
    "chat": "Chat with a model.",
    "env": "Print shell exports that configure OpenAI clients.",
    "setup": "Create the environments and programs that `up` needs.",
    "images": "List, save and load the chart's images, for clusters without Internet.",
    "bench": "Benchmark an OpenAI-compatible endpoint.",
    "doctor": "Check this machine, or a cluster, for missing requirements.",
}
LOCAL = ("up", "setup", "bench", "images")
"""Commands for this machine alone."""


class LazyGroup(click.Group):
    """A group that loads each command from `quarterdeck.cli.<name>`, attribute `command`."""

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
@click.option("--context", metavar="NAME", help="Use the release in the cluster of this kubeconfig context.")
@click.option(
    "--namespace", "-n", metavar="NAME", help="Namespace of the release. Default: the context's, or the only one."
)
@click.option("--release", metavar="NAME", help="Name of the release, if a namespace has several.")
@click.option("--url", help="Use the platform at this URL of a gateway.")
@click.option(
    "--key-file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="File with a key of that platform; - is standard input. Default: the admin key of the release.",
)
def cli(**options: Any) -> None:
    """A self-hosted OpenAI platform: your own models behind an OpenAI-compatible gateway.

    Commands use the platform on this machine, unless --context, --namespace or --release names one in a cluster
    (through kubectl and a port-forward) or --url one elsewhere.

    Folders, ports and addresses are set by QUARTERDECK_* variables: docs/reference/settings.md.
    """
    if any(value is not None for value in options.values()):
        ctx = click.get_current_context()
        target: Any = importlib.import_module("quarterdeck.cli.target")
        ctx.meta[target.META] = chosen = target.Target(**options)
        chosen.check()
        if ctx.invoked_subcommand in LOCAL:
            raise click.UsageError(f"`{ctx.invoked_subcommand}` works on this machine only")


def main() -> None:
    # click handles broken pipes (`quarterdeck models | head -1`) and Ctrl-C; other errors are ClickExceptions.
    cli(prog_name="quarterdeck" if sys.argv[0].endswith("__main__.py") else None)


if __name__ == "__main__":
    main()
