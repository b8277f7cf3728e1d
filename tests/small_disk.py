"""A disk that tests can fill."""

import os
import subprocess
from pathlib import Path

import pytest


class SmallDisk:
    """A file system of its own, in memory."""

    def __init__(self, folder: Path, kilobytes: int) -> None:
        self.folder = folder
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("NOT TESTED: a full disk with whole processes, because mounting a file system needs root")

    def fill(self, left: int = 0) -> None:
        """Leave no more than this many bytes."""
        block = bytes(4096)
        with (self.folder / "other").open("wb", buffering=0) as file:
            while True:
                try:
                    file.write(block)
                except OSError:
                    break
        if left:
            os.truncate(self.folder / "other", (self.folder / "other").stat().st_size - left)

    def free(self) -> None:
        (self.folder / "other").unlink()

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=True)
