"""Programs that the build calls, with their errors in one line."""

import subprocess
from collections.abc import Mapping
from pathlib import Path


class BuildError(Exception):
    """A program failed or something is missing. The message says what."""


def run(*command: str, environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a program, return its standard output. Raises BuildError with the end of its output."""
    try:
        done = subprocess.run(command, env=environ, cwd=cwd, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise BuildError(f"{command[0]} is not installed") from error
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise BuildError(f"{' '.join(command[:3])} failed ({done.returncode}):\n  " + "\n  ".join(lines[-25:]))
    return done.stdout


def succeeds(*command: str, environ: Mapping[str, str] | None = None) -> bool:
    """Whether the program is installed and exits with 0."""
    try:
        return subprocess.run(command, env=environ, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
