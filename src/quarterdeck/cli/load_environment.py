"""Which python runs the load door: it needs locust, which no other door may see. Found as `up` finds the engine's."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quarterdeck.settings.environment import Environment

VARIABLE = "QUARTERDECK_LOAD_PYTHON"


class LoadEnvironmentError(Exception):
    """There is no python with locust, and none can be made; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where we run: what is looked at to find the other python."""

    prefix: Path
    """Our environment's folder."""
    executable: Path
    has_locust: bool
    """Whether our own environment holds locust."""

    @property
    def beside(self) -> Path:
        """The environment `load` beside ours, in a checkout's `.envs/`."""
        return self.prefix.parent / "load" / "bin" / "python"

    @property
    def maker(self) -> Path | None:
        """The checkout's own maker of environments. None: we were installed, not checked out."""
        file = self.prefix.parent.parent / "environments" / "make.py"
        return file if self.prefix.parent.name == ".envs" and file.exists() else None


def here() -> Place:
    has_locust = importlib.util.find_spec("locust") is not None
    return Place(Path(sys.prefix), Path(sys.executable), has_locust)


def find(environment: Environment, place: Place) -> Path | None:
    """QUARTERDECK_LOAD_PYTHON, the environment beside ours, or ours. None: there is none yet."""
    if told := environment.variables.get(VARIABLE):
        return Path(told)
    if place.beside.exists():
        return place.beside
    return place.executable if place.has_locust else None


def ensure(environment: Environment, place: Place, say: Callable[[str], None]) -> Path:
    """The python; in a checkout it is made where it is missing. Raises LoadEnvironmentError."""
    if found := find(environment, place):
        return found
    if place.maker is None:
        raise LoadEnvironmentError(f"locust is not installed here: pip install 'quarterdeck[load]', or set {VARIABLE}")
    say("making the environment `load` (once; some 20 s)")
    command = [str(place.executable), str(place.maker), "load"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode or not place.beside.exists():
        lines = (done.stdout + done.stderr).strip().splitlines()
        said = next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "no output")
        raise LoadEnvironmentError(
            f"the environment `load` can't be made: {said.strip()}\n"
            f"Instead: pip install 'quarterdeck[load]' into one of your own, and set {VARIABLE} to its python."
        )
    return place.beside
