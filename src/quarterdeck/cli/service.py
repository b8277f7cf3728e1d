"""`quarterdeck service`: runs `up` under systemd, as this user's service or the system's."""

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import click

from quarterdeck.cli.service_unit import Unit, render
from quarterdeck.settings.environment import Environment

NAME = "quarterdeck.service"
VARIABLES = ("QUARTERDECK_HOST", "QUARTERDECK_PORT", "QUARTERDECK_WORKER_PORT", "QUARTERDECK_ENGINE_PORT")
"""Variables of this shell that the unit repeats. Others, and all secrets, belong into its environment file."""
_HEADER = """\
# Environment of the service quarterdeck: NAME=value in each line, read by systemd at its start. Mode 0600: secrets such
# as HF_TOKEN or QUARTERDECK_DATABASE_URL belong here and not into the unit.
"""


@dataclass(frozen=True, slots=True)
class Manager:
    """The systemd that runs the unit."""

    folder: Path
    environment_file: Path
    options: tuple[str, ...]

    @classmethod
    def system(cls) -> Self:
        return cls(Path("/etc/systemd/system"), Path("/etc/quarterdeck/environment"), ())

    @classmethod
    def user(cls) -> Self:
        parent = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config").absolute()
        return cls(parent / "systemd" / "user", parent / "quarterdeck" / "environment", ("--user",))

    def systemctl(self, *words: str) -> str | None:
        """Run systemctl. Returns why it failed, or None."""
        if (program := shutil.which("systemctl")) is None:
            return "there is no systemctl"
        command = [program, *self.options, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        return None if done.returncode == 0 else done.stderr.strip() or f"status {done.returncode}"

    def command_line(self, *words: str) -> str:
        return " ".join(("systemctl", *self.options, *words))


@click.group("service", short_help="Run the platform as a systemd service.")
def command() -> None:
    """Run `quarterdeck up` under systemd: it starts at boot, is restarted after a failure, and logs to the journal."""


@command.command("install")
@click.option("--system", "is_system", is_flag=True, help="A service of the machine (root). Default: this user's own.")
@click.option("--user", "user", default="quarterdeck", show_default=True, help="With --system: the user that runs it.")
@click.option(
    "--engine", type=click.Choice(["vllm", "sim", "none"]), default="vllm", show_default=True, help="As of `up`."
)
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="As of `up`.")
@click.option("--port", type=click.IntRange(1, 65535), help="As of `up`.")
@click.option("--tls-cert", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="As of `up`.")
@click.option("--tls-key", type=click.Path(dir_okay=False, path_type=Path), help="As of `up`.")
@click.option("--no-start", is_flag=True, help="Write the unit only.")
@click.option("--print", "is_printed", is_flag=True, help="Print the unit and change nothing.")
def install(
    is_system: bool,
    user: str,
    engine: str,
    config: Path | None,
    port: int | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    no_start: bool,
    is_printed: bool,
) -> None:
    """Write the unit, enable it and start it.

    A user's service uses this user's state and cache folders; it starts at boot if lingering is enabled
    (`loginctl enable-linger`). The machine's service uses /var/lib/quarterdeck and /var/cache/quarterdeck.
    """
    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key go together")
    manager = Manager.system() if is_system else Manager.user()
    words = ["up", "--engine", engine]
    for option, value in (("--config", config), ("--tls-cert", tls_cert), ("--tls-key", tls_key)):
        if value is not None:
            words += [option, str(value.absolute())]
    if port is not None:
        words += ["--port", str(port)]
    unit = Unit(
        command=(*_program(), *words),
        environ=_environ(is_system=is_system),
        environment_file=manager.environment_file,
        user=user if is_system else None,
    )
    if is_printed:
        click.echo(render(unit), nl=False)
        return
    _check(user, is_system=is_system)
    _write(manager, render(unit))
    click.echo(f"unit: {manager.folder / NAME}\nenvironment: {manager.environment_file}")
    _activate(manager, [["daemon-reload"], *([] if no_start else [["enable", "--now", NAME]])])
    if not is_system:
        click.echo("To start it at boot, without a login: loginctl enable-linger")
    journal = "journalctl -u quarterdeck" if is_system else "journalctl --user -u quarterdeck"
    click.echo(f"State: {manager.command_line('status', 'quarterdeck')}   Log: {journal}")


@command.command("uninstall")
@click.option("--system", "is_system", is_flag=True, help="The service of the machine.")
def uninstall(is_system: bool) -> None:
    """Stop the service and remove its unit. State, cache and the environment file stay."""
    manager = Manager.system() if is_system else Manager.user()
    file = manager.folder / NAME
    if not file.exists():
        raise click.ClickException(f"{file} does not exist")
    _activate(manager, [["disable", "--now", NAME]])
    try:
        file.unlink()
    except OSError as error:
        raise click.ClickException(f"cannot remove {file}: {error.strerror}") from None
    _activate(manager, [["daemon-reload"]])
    click.echo(f"removed {file}")


def _program() -> tuple[str, ...]:
    script = Path(sys.prefix) / "bin" / "quarterdeck"
    return (str(script),) if script.exists() else (sys.executable, "-m", "quarterdeck.cli")


def _environ(*, is_system: bool) -> dict[str, str]:
    try:
        environment = Environment.read()
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    given = {name: environment.variables[name] for name in VARIABLES if environment.variables.get(name)}
    if is_system:
        folders = {"QUARTERDECK_STATE": "/var/lib/quarterdeck", "QUARTERDECK_CACHE": "/var/cache/quarterdeck"}
        return {"HOME": "/var/lib/quarterdeck", **folders, **given}
    folders = {"QUARTERDECK_STATE": str(environment.state), "QUARTERDECK_CACHE": str(environment.cache)}
    return {**folders, "PATH": environment.variables.get("PATH", os.defpath), **given}


def _check(user: str, *, is_system: bool) -> None:
    if not is_system:
        return
    if os.geteuid() != 0:
        raise click.ClickException("--system needs root: run it with sudo")
    try:
        pwd.getpwnam(user)
    except KeyError:
        create = f"useradd --system --home-dir /var/lib/quarterdeck --shell /usr/sbin/nologin {user}"
        raise click.ClickException(f"there is no user {user}: create it with `{create}`") from None


def _write(manager: Manager, text: str) -> None:
    file = manager.folder / NAME
    try:
        manager.folder.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f".{NAME}.{os.getpid()}")
        fresh.write_text(text, encoding="utf-8")
        fresh.chmod(0o644)
        fresh.replace(file)
        manager.environment_file.parent.mkdir(parents=True, exist_ok=True)
        if not manager.environment_file.exists():
            descriptor = os.open(manager.environment_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as out:
                out.write(_HEADER)
    except OSError as error:
        raise click.ClickException(f"cannot write {error.filename or file}: {error.strerror}") from None


def _activate(manager: Manager, steps: Sequence[Sequence[str]]) -> None:
    """Run systemctl. Where it can't (no systemd, no session bus), say what remains to be done."""
    for number, words in enumerate(steps):
        if problem := manager.systemctl(*words):
            left = "; ".join(manager.command_line(*each) for each in steps[number:])
            click.echo(f"{manager.command_line(*words)} failed: {problem}\nRun where systemd runs: {left}", err=True)
            return
