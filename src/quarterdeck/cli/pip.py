"""The pip that downloads what is no dependency of the package: its configuration names the user's index and proxies."""

import importlib.util
import shutil
import sys


def find_pip() -> tuple[str, ...] | None:
    """The beginning of a command line: this environment's pip, one that uv provides, or that on PATH. None: none.

    Environments of `uv tool` have no pip; those of pipx share one.
    """
    if importlib.util.find_spec("pip") is not None:
        return (sys.executable, "-m", "pip")
    if uvx := shutil.which("uvx"):
        return (uvx, "pip")
    if pip := shutil.which("pip3") or shutil.which("pip"):
        return (pip,)
    return None
