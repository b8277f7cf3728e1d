"""Folders that no other user of this machine can enter: for Ray's sessions, and for temporary files of the engine.

Ray's sockets have paths of up to 107 bytes, too short for a session below many state folders. Its folder is then in the
system's temporary directory, where any user can create names: it has a random name, is created with mode 0700, and is
recorded in the state folder so that the next start finds it. A folder that is a link, belongs to another user or is
accessible to others is refused. Ray gives its own folder mode 0777, so that is always inside a private one.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path

SOCKET_PATH_LIMIT = 107
"""AF_UNIX, without the final zero byte."""
_RAY = "r"
SOCKET_TAIL = len(f"/{_RAY}") + len("/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store.10")
_PREFIX = "quarterdeck-"
_RANDOM = 8
"""Characters that mkdtemp adds."""


class UnsafeFolderError(Exception):
    """Another user could read or replace the folder's content; the message says why."""


class FolderInUseError(Exception):
    """Another engine door uses the same state folder."""


@contextmanager
def ray_folder(state: Path, environ: MutableMapping[str, str]) -> Iterator[Path]:
    """Lock the state folder's part for Ray, and return the folder for Ray's sessions. Must be entered before Ray and
    vLLM are imported: temporary files of the whole process tree go into a private folder as well, unless TMPDIR is set.

    vLLM creates sockets, and torch loads compiled code, in the temporary directory. Raises UnsafeFolderError and
    FolderInUseError.
    """
    base = state / "engine"
    make_private(base)
    with open(os.open(base / "lock", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600), "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUseError(f"another engine door uses the same state folder ({state})") from None
        folder = short_folder(base)
        if not environ.get("TMPDIR"):
            environ["TMPDIR"] = str(emptied(folder / "tmp"))
            tempfile.tempdir = None  # looked up again
        yield emptied(folder / _RAY)


def make_private(folder: Path) -> None:
    """Create the folder with mode 0700, or check that it is private. Raises UnsafeFolderError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if (reason := _why_unsafe(folder)) is not None:
        raise UnsafeFolderError(f"{folder} {reason}: remove it, or set its mode to 0700")


def short_folder(wanted: Path, temporary: Sequence[Path] | None = None) -> Path:
    """Return `wanted`, or another private folder if Ray's socket paths below `wanted` would be too long.

    `temporary`: where to create it. Raises UnsafeFolderError.
    """
    make_private(wanted)
    if _fits(wanted):
        return wanted
    record = wanted / "folder"
    known = _recorded(record)
    if known is not None and _fits(known) and known.name.startswith(_PREFIX) and _why_unsafe(known) is None:
        return known
    for place in temporary if temporary is not None else (Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108
        if _fits(place / (_PREFIX + "x" * _RANDOM)) and _is_safe_place(place):
            made = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
            record.write_text(f"{made}\n", encoding="utf-8")
            return made
    raise UnsafeFolderError(
        f"socket paths below {wanted} are too long, and the temporary directory is too long or writable by other users "
        "without the sticky bit: set QUARTERDECK_STATE or TMPDIR to a shorter path"
    )


def emptied(folder: Path) -> Path:
    """Return the folder without the files of the last run. Raises UnsafeFolderError."""
    if folder.is_symlink():
        raise UnsafeFolderError(f"{folder} is a link: remove it")
    shutil.rmtree(folder, ignore_errors=True)
    make_private(folder)
    return folder


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder)) + SOCKET_TAIL <= SOCKET_PATH_LIMIT


def _recorded(record: Path) -> Path | None:
    try:
        return Path(record.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return None


def _why_unsafe(folder: Path) -> str | None:
    try:
        status = folder.lstat()
    except OSError as error:
        return f"can't be read ({error.strerror})"
    if stat.S_ISLNK(status.st_mode):
        return "is a link"
    if not stat.S_ISDIR(status.st_mode):
        return "is not a folder"
    if status.st_uid != os.geteuid():
        return f"belongs to another user (uid {status.st_uid})"
    if status.st_mode & 0o077:
        return f"is accessible to other users (mode {stat.S_IMODE(status.st_mode):04o})"
    return None


def _is_safe_place(place: Path) -> bool:
    """Whether no other user can rename or remove a folder in it."""
    try:
        status = place.stat()
    except OSError:
        return False
    if status.st_uid not in (0, os.geteuid()):
        return False
    return not status.st_mode & 0o022 or bool(status.st_mode & stat.S_ISVTX)
