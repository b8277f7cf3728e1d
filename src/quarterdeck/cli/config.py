"""`quarterdeck config`: checks a quarterdeck.yaml without starting anything."""

from pathlib import Path

import click

from quarterdeck.cli.output import as_json, print_json
from quarterdeck.settings.drop_ins import read_configuration
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.loading import ConfigError, load
from quarterdeck.settings.packaged import config_path
from quarterdeck.settings.unknown_names import unknown_names


@click.group("config", short_help="Check a configuration file.")
def command() -> None:
    """Check a configuration file."""


@command.command("check")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@as_json
def check(file: Path | None, is_json: bool) -> None:
    """Check FILE, or the file that `up` would use, with the models that were added beside it.

    Prints a line `file:line: setting: problem` for each problem, and warns of names that nothing has. Exits with 1 if
    the file is not valid; warnings do not count.
    """
    try:
        environment = Environment.read()
        path = file or config_path(environment)
        config = load(path) if file else read_configuration(environment)
    except ConfigError as error:
        problems = str(error).splitlines()
        if is_json:
            print_json({"valid": False, "problems": problems, "warnings": []})
        else:
            click.echo("\n".join(problems), err=True)
        raise SystemExit(1) from None
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    warnings = [*unknown_names(config), *config.problems]
    if is_json:
        print_json({"valid": True, "problems": [], "warnings": warnings})
        return
    for text in warnings:
        click.secho(f"warning: {text}", fg="yellow", err=True)
    click.echo(f"{path} is valid: {len(config.models)} models, {len(config.routes)} routes, {len(config.teams)} teams")
