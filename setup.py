"""Adds to the wheel what `quarterdeck setup` needs and what lies outside `src`: see quarterdeck/cli/environments.py."""

from pathlib import Path
from shutil import copy2

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
FILES = (
    "pyproject.toml",
    "environments/*.py",
    "environments/*.txt",
    "observability/dashboards/*",
    "observability/rules/*",
)


class BuildWithCheckoutFiles(build_py):
    """The package's modules, and `checkout_files` beside them."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return  # they are found in the checkout
        folder = Path(self.build_lib) / "quarterdeck" / "checkout_files"
        for pattern in FILES:
            for file in ROOT.glob(pattern):
                target = folder / file.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                copy2(file, target)


setup(cmdclass={"build_py": BuildWithCheckoutFiles})
