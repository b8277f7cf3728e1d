"""`quarterdeck setup`: creates what `up` needs and pip does not install with the package."""

import shutil
from pathlib import Path

import click

from quarterdeck.cli import redis_server
from quarterdeck.cli.environments import PACKAGE, Layout, SetupError
from quarterdeck.cli.output import reason_of
from quarterdeck.settings.environment import Environment

ENVIRONMENTS = {
    "engine": "vLLM and Ray: with a GPU vllm from PyPI, else its build for CPUs. 4 GB; minutes.",
    "load": "locust, for `quarterdeck bench`'s load tests. 20 seconds.",
    "phoenix": "Arize Phoenix, a trace backend for `up --traces phoenix`.",
}


@click.group("setup", short_help="Create the environments and programs that `up` needs.")
def command() -> None:
    """Create what `up` needs and pip does not install with the package.

    Environments are kept in the cache (QUARTERDECK_CACHE) and shared by installations with the same pins.
    """


def _environment() -> Environment:
    try:
        return Environment.read()
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def _make(name: str) -> None:
    try:
        python = Layout.find(_environment().cache).make(name, show=click.echo)
    except SetupError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{name}: {python}")


def _register(name: str, help: str) -> None:
    @command.command(name, help=help)
    def make() -> None:
        _make(name)


for _name, _help in ENVIRONMENTS.items():
    _register(_name, _help)


@command.command("redis")
def redis() -> None:
    """Download a redis-server, where PATH has none. `up` does so by itself; this is for machines that go offline."""
    try:
        server = redis_server.ensure(_environment().cache)
    except redis_server.RedisServerError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"redis-server {server.version}: {server.path}")


@command.command("dashboards")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def dashboards(folder: Path) -> None:
    """Copy the Grafana dashboards and the Prometheus rules to FOLDER. Existing files of these names are replaced."""
    layout = Layout.find(_environment().cache)
    source = (layout.root if layout.is_checkout else PACKAGE / "checkout_files") / "observability"
    if not source.is_dir():
        raise click.ClickException("this installation has no dashboards")
    try:
        for name in ("dashboards", "rules"):
            shutil.copytree(source / name, folder / name, dirs_exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"cannot write {folder}: {reason_of(error)}") from None
    click.echo(f"dashboards and rules are in {folder}")
