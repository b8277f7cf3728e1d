"""Reads small files that a configuration names, and the configuration itself: whatever the path is, within bounds.

A pipe without a writer would block for ever, and a device has no end.
"""

import errno
import os
import stat
from pathlib import Path

TRANSIENT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO})
"""Errors that say nothing of the file: it may be read a moment later."""


def read_file(path: str | Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes. Raises OSError, also for any other kind of path."""
    try:
        # Without O_NONBLOCK, opening a pipe waits for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:
        raise OSError(errno.EINVAL, "the path has a NUL character") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):  # before `open`, which refuses a folder and leaves its descriptor open
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        raise OSError(errno.EINVAL, "not a regular file")
    with open(descriptor, "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"larger than {most} bytes")
    return content
