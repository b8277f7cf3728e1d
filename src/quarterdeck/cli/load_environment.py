"""Finds or creates the Python environment for load tests, the only one with locust."""

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quarterdeck.cli.environments import PACKAGE, Layout, SetupError
from quarterdeck.settings.environment import Environment

VARIABLE = "QUARTERDECK_LOAD_PYTHON"


class LoadEnvironmentError(Exception):
    """No environment with locust, and none can be created; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Installation:
    """The installation that runs this command."""

    executable: Path
    has_locust: bool
    """Whether this environment has locust."""
    package: Path = PACKAGE
    """The folder of `quarterdeck`, relative to which environments are searched."""


def current() -> Installation:
    return Installation(Path(sys.executable), importlib.util.find_spec("locust") is not None)


def find(environment: Environment, installation: Installation) -> Path | None:
    """QUARTERDECK_LOAD_PYTHON, the environment `load` of this installation, or this one. None: not found."""
    if path := environment.variables.get(VARIABLE):
        return Path(path)
    if (python := Layout.find(environment.cache, installation.package).python("load")).exists():
        return python
    return installation.executable if installation.has_locust else None


def ensure(environment: Environment, installation: Installation, say: Callable[[str], None]) -> Path:
    """Return the Python of an environment with locust, creating it if it is missing. Raises LoadEnvironmentError."""
    if found := find(environment, installation):
        return found
    layout = Layout.find(environment.cache, installation.package)
    if layout.make_script is None:
        raise LoadEnvironmentError(f"locust is not installed: pip install 'quarterdeck[load]', or set {VARIABLE}")
    say("creating the environment `load` (once, about 20 s)")
    try:
        return layout.make("load", package=installation.package, executable=installation.executable)
    except SetupError as error:
        raise LoadEnvironmentError(
            f"cannot create the environment `load`: {error}\n"
            f"Alternatively, pip install 'quarterdeck[load]' into another environment and set {VARIABLE} to its python."
        ) from None
