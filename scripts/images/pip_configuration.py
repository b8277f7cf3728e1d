"""pip's configuration of this machine, for pip in a build: its indexes, and the folders that they lie in."""

import os
import re
import subprocess
import sys
from pathlib import Path

KNOWN = ("index-url", "extra-index-url", "find-links", "cert", "trusted-host", "default-timeout")


def read() -> dict[str, str]:
    """The options of `pip config list` that say where packages come from; the environment's win over the files'."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    found: dict[str, str] = {}
    for level, option, value in re.findall(r"^(:env:|\w+)\.([\w-]+)='(.*)'$", listed, re.MULTILINE):
        if option in KNOWN and (level == ":env:" or option not in found):
            found[option] = value.replace("\\n", "\n")
    return found


def folders(options: dict[str, str]) -> list[str]:
    """Folders of this machine that the options name, to be mounted in the build at the same place."""
    words = " ".join(options.get(name, "") for name in ("index-url", "extra-index-url", "find-links")).split()
    paths = (word.removeprefix("file://").removesuffix("/simple") for word in words)
    return sorted({path for path in paths if path.startswith("/") and os.path.isdir(path)})


def write(options: dict[str, str], file: Path) -> None:
    """Write them as a pip.conf."""
    lines = [f"{name} = {value}" for name, value in options.items()]
    file.write_text("\n".join(["[global]", "disable-pip-version-check = true", *lines, ""]), encoding="utf-8")
