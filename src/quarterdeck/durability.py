"""What makes a change of a folder survive a power failure."""

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Make the folder's list of files durable: a file that was made or renamed in it is there after a power failure.
    Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
