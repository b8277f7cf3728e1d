"""The Python environments beside the one that runs this command: `engine`, and on demand `load` and `phoenix`.

In a checkout they are links in its `.envs` folder, made by `environments/make.py`. A package installed by pip carries
that script and its constraints (`quarterdeck/checkout_files`, setup.py); its environments are linked in a folder of the
cache that looks like a checkout: `<cache>/installed/<hash>/.envs/engine`, with `src/quarterdeck` a link to the package,
so that the engine runs the code of this installation, also after an upgrade.
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

PACKAGE = Path(__file__).resolve().parents[1]


class SetupError(Exception):
    """An environment can't be created; the message says why."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where environments are, and what makes them."""

    root: Path
    """The checkout, or the folder in the cache that looks like one."""
    make_script: Path | None
    """environments/make.py. None: an image, which was built with what it needs."""
    is_checkout: bool

    @classmethod
    def find(cls, cache: Path, package: Path = PACKAGE) -> Self:
        """The layout of the installation whose package this is."""
        root = package.parents[1]
        if (script := root / "environments" / "make.py").exists():
            return cls(root, script, is_checkout=True)
        script = package / "checkout_files" / "environments" / "make.py"
        name = hashlib.sha256(os.fsencode(package)).hexdigest()[:12]
        return cls(cache / "installed" / name, script if script.exists() else None, is_checkout=False)

    def python(self, name: str) -> Path:
        """The interpreter of an environment, whether or not it exists."""
        return self.root / ".envs" / name / "bin" / "python"

    def how_to_make(self, name: str) -> str:
        """The command that creates an environment, for messages."""
        if not self.is_checkout:
            return f"quarterdeck setup {name}"
        return {"engine": "make setup"}.get(name, f"make env-{name}")

    def make(
        self,
        name: str,
        *,
        package: Path = PACKAGE,
        executable: Path = Path(sys.executable),
        show: Callable[[str], None] | None = None,
    ) -> Path:
        """Create an environment, or find that it exists. Returns its interpreter. `executable`: the Python it is made
        with. `show` gets each line of progress. Raises SetupError."""
        if self.make_script is None:
            raise SetupError(f"this installation can't create the environment `{name}`")
        try:
            if not self.is_checkout:
                self._link_package(package)
        except OSError as error:
            raise SetupError(f"cannot write {self.root}: {error.strerror or error}") from None
        command = [str(executable), str(self.make_script), "--into", str(self.root), name]
        lines: list[str] = []
        try:
            with subprocess.Popen(  # noqa: S603
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
            ) as process:
                for line in process.stdout or ():
                    lines.append(line.strip())
                    if show is not None:
                        show(line.rstrip())
        except OSError as error:
            raise SetupError(str(error)) from None
        python = self.python(name)
        if process.returncode or not python.exists():
            reason = next((line for line in reversed(lines) if "error" in line.lower()), (lines or ["no output"])[-1])
            raise SetupError(reason)
        return python

    def _link_package(self, package: Path) -> None:
        source = self.root / "src"
        source.mkdir(parents=True, exist_ok=True)
        fresh = source / f".quarterdeck.{os.getpid()}"
        fresh.symlink_to(package)
        fresh.replace(source / "quarterdeck")
