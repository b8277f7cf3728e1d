"""A copy of a SQLite database that is in use, and what a copy says of its tables. Standard library only."""

import contextlib
import sqlite3
from pathlib import Path


class BackupError(Exception):
    """A database can't be copied, or a copy can't be used; the message says why."""


def copy_database(source: Path, target: Path) -> None:
    """Copy a database with SQLite's online backup: one state of it, whatever is written meanwhile. Writers go on.

    Raises BackupError.
    """
    try:
        with (
            # rw: a database in WAL mode that is not in use can't be opened without making its log.
            contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True)) as before,
            contextlib.closing(sqlite3.connect(target)) as copy,
        ):
            before.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
        if (problem := _problem(target)) is not None:
            raise BackupError(f"the copy of {source} is damaged: {problem}")
    except sqlite3.Error as error:
        raise BackupError(f"cannot copy {source}: {error}") from error


def revision_of(database: Path) -> str:
    """The revision of the tables. Raises BackupError where the file is damaged, or no database of this platform."""
    try:
        if (problem := _problem(database)) is not None:
            raise BackupError(f"the database is damaged: {problem}")
        with contextlib.closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        raise BackupError(f"the database can't be read: {error}") from error
    if row is None:
        raise BackupError("the database has no tables of this platform")
    return str(row[0])


def is_compatible(database: Path, known: list[str], newest: str | None) -> bool:
    """Whether a program that knows the revisions `known` works with the tables (`migration.upgrade` decides alike)."""
    if revision_of(database) in known:
        return True
    query = "SELECT 1 FROM compatible_programs WHERE program = ? AND tables = (SELECT version_num FROM alembic_version)"
    with contextlib.closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        try:
            return connection.execute(query, (newest,)).fetchone() is not None
        except sqlite3.OperationalError:  # older than this table
            return False


def _problem(database: Path) -> str | None:
    with contextlib.closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    return None if found == "ok" else str(found)
