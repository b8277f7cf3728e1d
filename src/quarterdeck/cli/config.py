"""`quarterdeck config`: checks a quarterdeck.yaml without starting anything."""

from pathlib import Path

import click

from quarterdeck.cli import credentials, state
from quarterdeck.cli.client import gateway_client, list_all
from quarterdeck.cli.output import as_json, print_json, printable
from quarterdeck.settings.contradictions import contradictions
from quarterdeck.settings.drop_ins import folder_of, load_with_drop_ins, read_configuration
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.loading import ConfigError, load
from quarterdeck.settings.packaged import config_path
from quarterdeck.settings.unknown_names import unknown_key_models, unknown_names


@click.group("config", short_help="Check a configuration file.")
def command() -> None:
    """Check a configuration file."""


@command.command("check")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@as_json
def check(file: Path | None, is_json: bool) -> None:
    """Check FILE, or the file that `up` would use, with the models that were added beside it.

    Prints a line `file:line: setting: problem` for each problem, and warns of names that nothing has (where the
    platform runs, also in the models of its keys), of settings that contradict each other, and of tools without an API
    key or a usable OpenAPI document. Exits with 1 if the file is not valid; warnings do not count.
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
    warnings = [*unknown_names(config), *contradictions(config), *config.problems]
    if config.tools.mcp_servers or config.tools.http_apis:
        from quarterdeck.cli import tool_checks  # it reads OpenAPI documents

        warnings += tool_checks.problems(config.tools, environment.variables, path.parent)
    if state.is_locked(environment.state):
        with_added = load_with_drop_ins(path, folder_of(environment.state))
        warnings += unknown_key_models(with_added, _keys(environment))
    if is_json:
        print_json({"valid": True, "problems": [], "warnings": warnings})
        return
    for text in warnings:
        click.secho(f"warning: {text}", fg="yellow", err=True)
    click.echo(f"{path} is valid: {len(config.models)} models, {len(config.routes)} routes, {len(config.teams)} teams")


def _keys(environment: Environment) -> list[tuple[str, list[str]]]:
    """Valid keys of the platform that runs on this machine, with the models that each may use. Where it does not
    answer, a note, and none."""
    try:
        user = credentials.read(environment.state)
        with gateway_client(user.gateway_url, user.admin_key) as client:
            orgs = [str(org["id"]) for org in list_all(client, "/admin/organizations")]
            found = [(org, key) for org in orgs for key in list_all(client, "/admin/keys", org=org)]
    except (credentials.CredentialsError, click.ClickException) as error:
        text = error.message if isinstance(error, click.ClickException) else str(error)
        click.echo(f"note: the models of keys are not checked: {text}", err=True)
        return []
    return [(printable(f"{key['name']} ({org})"), key["models"] or []) for org, key in found if not key["revoked"]]
