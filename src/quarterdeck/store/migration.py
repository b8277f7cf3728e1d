"""Migrations of the tables: Alembic without its command line, on a connection of the caller."""

import importlib.resources
import os

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection


class MigrationError(Exception):
    """The tables cannot be migrated to this program's version."""


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, without a file: the migrations are part of this package."""
    settings = Config()
    with importlib.resources.as_file(importlib.resources.files("quarterdeck.store").joinpath("migrations")) as folder:
        settings.set_main_option("script_location", os.fspath(folder).replace("%", "%%"))
    settings.attributes["connection"] = connection
    return settings


def head() -> str | None:
    """The newest version of the tables that this program knows."""
    return ScriptDirectory.from_config(config()).get_current_head()


def upgrade(connection: Connection) -> None:
    """Run missing migrations. The caller holds the lock and the transaction. Raises MigrationError."""
    try:
        command.upgrade(config(connection), "head")
    except CommandError as error:
        raise MigrationError(f"the database was migrated by another version of this program: {error}") from error
