"""Alembic without its command line: the steps in `migrations/` run on a connection that is handed in."""

import importlib.resources
import os

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection


class MigrationError(Exception):
    """The tables can't be brought to this program's version."""


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, without a file: the steps lie in this package, installed or not."""
    settings = Config()
    with importlib.resources.as_file(importlib.resources.files("quarterdeck.store").joinpath("migrations")) as folder:
        settings.set_main_option("script_location", os.fspath(folder).replace("%", "%%"))
    settings.attributes["connection"] = connection
    return settings


def head() -> str | None:
    """The version of the tables that this program knows."""
    return ScriptDirectory.from_config(config()).get_current_head()


def upgrade(connection: Connection) -> None:
    """Run the steps that are missing. The caller holds the lock and the transaction."""
    try:
        command.upgrade(config(connection), "head")
    except CommandError as error:
        raise MigrationError(f"the database is of another version than this program: {error}") from error
