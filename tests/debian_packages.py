"""Programs from Debian packages, unpacked in the user's cache where they are not on PATH.

`apt-get download` and `dpkg-deb -x` need no root and install nothing.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path


def unpacked(packages: Sequence[str], program: str) -> Path:
    """The root of the unpacked packages, downloaded at the first call. `program` is a path below it, as
    `usr/bin/prometheus`."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quarterdeck/tools"
    return unpacked_in(cache / packages[0], packages, program)


def unpacked_in(folder: Path, packages: Sequence[str], program: str) -> Path:
    """As `unpacked`, below `folder`."""
    root = folder / "root"
    if not (root / program).exists():
        folder.mkdir(parents=True, exist_ok=True)
        private = ["-o", f"Dir::State::lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache"]
        for options in ([], private):  # the machine's own lists may be empty, and only root may fill them
            if options:
                (folder / "lists/partial").mkdir(parents=True, exist_ok=True)
                (folder / "cache/archives/partial").mkdir(parents=True, exist_ok=True)
                subprocess.run(["apt-get", *options, "update"], cwd=folder, check=True, capture_output=True)
            command = ["apt-get", *options, "download", *packages]
            if subprocess.run(command, cwd=folder, check=bool(options), capture_output=True).returncode == 0:
                break
        new = folder / f"new-{os.getpid()}"
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), str(new)], check=True, capture_output=True)
        if root.exists():
            shutil.rmtree(new)  # another test run was faster
        else:
            new.rename(root)
    return root


def program(packages: Sequence[str], path: str) -> Path:
    """A program without libraries of its own: from PATH, or unpacked."""
    if (found := shutil.which(Path(path).name)) is not None:
        return Path(found)
    return unpacked(packages, path) / path
