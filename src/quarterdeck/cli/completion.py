"""`quarterdeck completion`: scripts for shells, also for the short name `qd`. Names and ids are asked of the
platform (`suggestions`)."""

import click
from click.shell_completion import get_completion_class

PROGRAMS = ("quarterdeck", "qd")


@click.command("completion", short_help="Print a completion script for bash, zsh or fish.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands, options, and names and ids of keys, models, files and more.

    \b
    bash: eval "$(quarterdeck completion bash)" in ~/.bashrc
    zsh:  eval "$(quarterdeck completion zsh)" in ~/.zshrc, after compinit
    fish: quarterdeck completion fish > ~/.config/fish/completions/quarterdeck.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101  # click has all three
    for program in PROGRAMS:
        variable = f"_{program.upper()}_COMPLETE"
        click.echo(kind(ctx.find_root().command, {}, program, variable).source())
