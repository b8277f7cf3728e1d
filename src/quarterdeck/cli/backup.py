"""`quarterdeck backup`: everything of the state folder that can't be made again, in one archive, and back.

Not in it: Redis' file. It has limits, which start full, budgets, which the worker counts again from the ledger, and
records that were not in the ledger yet, a second's worth.
"""

import datetime
import importlib.metadata
import os
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

import click

from quarterdeck.cli import credentials, state
from quarterdeck.cli.backup_archive import ArchiveError, Manifest, extract, read_manifest, write
from quarterdeck.cli.output import print_json
from quarterdeck.settings.environment import Environment
from quarterdeck.store.spool import RESERVE
from quarterdeck.weights.progress import size_text

FOLDERS = ("models.d", "spool", "blobs")
"""Folders of the state folder that are backed up. spool: records that wait on disk while Redis is away."""
CONFIG = "config/quarterdeck.yaml"
DATABASE = "quarterdeck.db"


@click.group("backup", short_help="Back up the platform on this machine, and restore it.")
def command() -> None:
    """Back up the database, keys, configuration and models that were added, and restore them, here or elsewhere."""


@command.command("create")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The configuration file that the platform runs with. Default: QUARTERDECK_CONFIG.",
)
def create(file: Path | None, config: Path | None) -> None:
    """Write a backup to FILE, while the platform runs or not. Default: quarterdeck-<time>.tar.gz in this folder.

    The file has the API keys of this user and everything that was captured: keep it as secret as the state folder. A
    PostgreSQL database is not in it: use pg_dump (docs/operations/backup.md).
    """
    environment = _environment()
    now = datetime.datetime.now(datetime.UTC)
    target = (file or Path(f"quarterdeck-{now:%Y%m%dT%H%M%SZ}.tar.gz")).absolute()
    if target.exists():
        raise click.ClickException(f"{target} exists")
    if not (environment.state / credentials.FILENAME).exists():
        raise click.ClickException(f"there is no platform in {environment.state}: nothing to back up")
    try:
        manifest = _create(environment, target, config or environment.config, now)
    except OSError as error:
        raise click.ClickException(f"cannot write {target}: {error.strerror or error}") from None
    except ArchiveError as error:
        raise click.ClickException(str(error)) from None
    size = target.stat().st_size
    click.echo(f"{target}: {len(manifest.files)} files, {size_text(size)}")
    if manifest.database != "sqlite":
        click.echo("The database is PostgreSQL and not in it: back it up with pg_dump.", err=True)


def _create(environment: Environment, target: Path, config: Path | None, now: datetime.datetime) -> Manifest:
    from quarterdeck.store import sqlite_backup

    folder = environment.state
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=target.parent) as name:
        staged = Path(name)
        sources: dict[str, Path] = {}
        database = sqlite_file(environment)
        revision = None
        if database is not None:
            try:
                sqlite_backup.copy_database(database, staged / DATABASE)
                revision = sqlite_backup.revision_of(staged / DATABASE)
            except sqlite_backup.BackupError as error:
                raise ArchiveError(str(error)) from None
            sources[DATABASE] = staged / DATABASE
        # After the database, which names them. Copied: spool and drop-ins may change while they are archived.
        copied = {credentials.FILENAME: folder / credentials.FILENAME}
        if config is not None:
            copied[CONFIG] = config
        for each in FOLDERS:
            copied |= {str(file.relative_to(folder)): file for file in _files(folder / each)}
        for path, source in copied.items():
            (staged / path).parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(source, staged / path)
            except FileNotFoundError:
                continue  # replayed from the spool, or deleted, meanwhile
            sources[path] = staged / path
        return write(
            target,
            sources,
            quarterdeck=importlib.metadata.version("quarterdeck"),
            created=now.isoformat(timespec="seconds"),
            database="sqlite" if database is not None else "postgresql",
            revision=revision,
        )


def _files(folder: Path) -> list[Path]:
    """Regular files, but for the space that a spool reserves on the disk: it has no records."""
    found = (each for each in folder.rglob("*") if each.is_file() and not each.is_symlink())
    return sorted(each for each in found if each.suffix != RESERVE)


def sqlite_file(environment: Environment) -> Path | None:
    """The SQLite file of the platform. None: it uses PostgreSQL."""
    url = environment.database_url
    return Path(urlsplit(url).path.removeprefix("/")) if url.startswith("sqlite") else None


@command.command("show")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "is_json", is_flag=True, help="Print the archive's manifest.")
def show(file: Path, is_json: bool) -> None:
    """Show what a backup has, without restoring it."""
    try:
        manifest = read_manifest(file)
    except ArchiveError as error:
        raise click.ClickException(str(error)) from None
    if is_json:
        print_json(asdict(manifest))
        return
    click.echo(f"Quarterdeck {manifest.quarterdeck}, {manifest.created}, database {manifest.database}")
    for each in manifest.files:
        click.echo(f"{each.size:>12}  {each.path}")


@command.command("restore")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--replace", "replaces", is_flag=True, help="Move an existing state folder aside first.")
def restore(file: Path, replaces: bool) -> None:
    """Restore a backup into the state folder (QUARTERDECK_STATE), which must be empty or not exist.

    All files are verified before anything is put in place. The platform must not run.
    """
    environment = _environment()
    target = environment.state
    if state.is_locked(target):
        raise click.ClickException(f"the platform is running on {target}: stop it first")
    if not replaces and target.exists() and any(target.iterdir()):
        raise click.ClickException(f"{target} is not empty: use --replace to move it aside")
    fresh = target.with_name(f".{target.name}.restoring-{os.getpid()}")
    try:
        fresh.mkdir(parents=True, mode=0o700)
        try:
            manifest = extract(file, fresh)
            _check_database(fresh, manifest)
            aside = _put_in_place(fresh, target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except ArchiveError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"cannot restore to {target}: {error.strerror or error}") from None
    click.echo(f"restored {len(manifest.files)} files of {manifest.created} to {target}")
    if aside is not None:
        click.echo(f"the former state folder is {aside}")
    if any(each.path == CONFIG for each in manifest.files):
        click.echo(f"start with: quarterdeck up --config {target / CONFIG}")
    if manifest.database != "sqlite":
        click.echo(
            "Its database is PostgreSQL: restore that with pg_restore, and set QUARTERDECK_DATABASE_URL.", err=True
        )


def _check_database(folder: Path, manifest: Manifest) -> None:
    """Refuse tables that this version does not know. Raises ArchiveError."""
    if manifest.database != "sqlite":
        return
    from quarterdeck.store import migration, sqlite_backup

    try:
        is_known = sqlite_backup.is_compatible(folder / DATABASE, migration.known_revisions(), migration.head())
    except sqlite_backup.BackupError as error:
        raise ArchiveError(str(error)) from None
    if not is_known:
        raise ArchiveError(
            f"the backup was made by Quarterdeck {manifest.quarterdeck}, whose tables this version does not know:"
            " restore it with that version or a newer one"
        )


def _put_in_place(fresh: Path, target: Path) -> Path | None:
    """Returns where the former folder is now. None: there was none, or it was empty."""
    aside = None
    if target.exists():
        if any(target.iterdir()):
            aside = target.with_name(f"{target.name}.before-{time.strftime('%Y%m%dT%H%M%S')}")
            target.rename(aside)
        else:
            target.rmdir()
    fresh.rename(target)
    return aside


def _environment() -> Environment:
    try:
        return Environment.read()
    except ValueError as error:
        raise click.ClickException(str(error)) from None
