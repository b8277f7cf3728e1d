"""Finds or creates the Python environment for load tests, the only one with locust."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quarterdeck.settings.environment import Environment

VARIABLE = "QUARTERDECK_LOAD_PYTHON"


class LoadEnvironmentError(Exception):
    """No environment with locust, and none can be created; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Installation:
    """The installation that runs this command, relative to which the environment is searched."""

    prefix: Path
    """Folder of this environment."""
    executable: Path
    has_locust: bool
    """Whether this environment has locust."""

    @property
    def load_python(self) -> Path:
        """Python of the environment `load` beside this one, in a checkout's `.envs/`."""
        return self.prefix.parent / "load" / "bin" / "python"

    @property
    def make_script(self) -> Path | None:
        """The checkout's environments/make.py. None: not in a checkout."""
        file = self.prefix.parent.parent / "environments" / "make.py"
        return file if self.prefix.parent.name == ".envs" and file.exists() else None


def current() -> Installation:
    has_locust = importlib.util.find_spec("locust") is not None
    return Installation(Path(sys.prefix), Path(sys.executable), has_locust)


def find(environment: Environment, installation: Installation) -> Path | None:
    """QUARTERDECK_LOAD_PYTHON, the environment `load` beside this one, or this one. None: not found."""
    if path := environment.variables.get(VARIABLE):
        return Path(path)
    if installation.load_python.exists():
        return installation.load_python
    return installation.executable if installation.has_locust else None


def ensure(environment: Environment, installation: Installation, say: Callable[[str], None]) -> Path:
    """Return the Python of an environment with locust, creating it in a checkout. Raises LoadEnvironmentError."""
    if found := find(environment, installation):
        return found
    if installation.make_script is None:
        raise LoadEnvironmentError(f"locust is not installed: pip install 'quarterdeck[load]', or set {VARIABLE}")
    say("creating the environment `load` (once, about 20 s)")
    command = [str(installation.executable), str(installation.make_script), "load"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode or not installation.load_python.exists():
        lines = (done.stdout + done.stderr).strip().splitlines()
        reason = next(
            (line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "no output"
        )
        raise LoadEnvironmentError(
            f"cannot create the environment `load`: {reason.strip()}\n"
            f"Alternatively, pip install 'quarterdeck[load]' into another environment and set {VARIABLE} to its python."
        )
    return installation.load_python
