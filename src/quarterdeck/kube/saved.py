"""What a process last knew of the cluster, in its state folder: read when it starts and the API server is away. It is a
cache; whatever is wrong with it is logged and it counts as absent."""

import contextlib
import logging
import os
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from quarterdeck.settings.files import read_file

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_BYTES = 64 * 1024 * 1024


def read_saved(path: Path, type: type[T]) -> T | None:
    """None: there is none, or it can't be read. Blocks."""
    try:
        return msgspec.json.decode(read_file(path, MAX_BYTES), type=type)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        log.warning("ignoring %s: %s", path, error)
        return None


def save(path: Path, value: Any) -> None:
    """Write the file whole or not at all, readable by this user only. Blocks."""
    part = path.with_name(f"{path.name}.{os.urandom(4).hex()}.part")  # the folder may be another process' as well
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(value))
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        log.warning("could not save %s: %s", path, error)
