"""Migrations of the tables: Alembic without its command line, on a connection of the caller.

An upgrade of a deployment migrates first and replaces processes then, and a rollback brings older ones back. So a
program runs on tables that are newer than it knows, where the migrations in between only add. A migration that older
programs can't live with says `breaks_older = True`: it belongs into a later release than the program that no longer
needs what it takes away. Which programs are compatible is noted in the tables, as an older one can't know it.
"""

import importlib.resources
import logging
import os

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, delete, insert, inspect, select, text

from quarterdeck.store.tables import compatible_programs

log = logging.getLogger(__name__)


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
        if not _is_compatible(connection):
            raise MigrationError(f"the database was migrated by another version of this program: {error}") from error
        log.warning("the tables are of a newer version that works with this one; not migrated")
    else:
        _note_compatible(connection)


def compatible(script: ScriptDirectory) -> list[str]:
    """The revisions whose programs work with the newest tables: back to the last migration that breaks older ones."""
    found = []
    for step in script.walk_revisions():
        found.append(step.revision)
        if getattr(step.module, "breaks_older", False):
            break
    return found


def _is_compatible(connection: Connection) -> bool:
    if not inspect(connection).has_table(compatible_programs.name):
        return False
    tables = connection.scalar(text("SELECT version_num FROM alembic_version"))
    this = (compatible_programs.c.tables == tables) & (compatible_programs.c.program == head())
    return connection.scalar(select(compatible_programs.c.program).where(this)) is not None


def _note_compatible(connection: Connection) -> None:
    script = ScriptDirectory.from_config(config())
    newest, wanted = script.get_current_head(), compatible(script)
    known = set(connection.scalars(select(compatible_programs.c.program).where(compatible_programs.c.tables == newest)))
    if known != set(wanted):
        connection.execute(delete(compatible_programs))
        connection.execute(insert(compatible_programs), [{"tables": newest, "program": each} for each in wanted])


def known_revisions() -> list[str]:
    """All revisions of the tables that this program can migrate from."""
    return [step.revision for step in ScriptDirectory.from_config(config()).walk_revisions()]
