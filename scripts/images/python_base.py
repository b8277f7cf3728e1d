"""The Python image that the others are built on, where Docker Hub can't be reached: Debian's packages by mmdebstrap.

It stands for `docker.io/library/python:3.11-slim-bookworm`: Debian 12 and Python 3.11, with pip and venv for the build.
"""

import hashlib
import os
import socket
from pathlib import Path

from images.programs import BuildError, run, succeeds

UPSTREAM = "docker.io/library/python:3.11-slim-bookworm"
LOCAL = "localhost/python"

RECIPE = (
    "mmdebstrap",
    "--quiet",
    "--variant=minbase",
    "--include=ca-certificates,python3,python3-venv,python3-pip",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    "bookworm",
)
# python:3.11-slim has `python` and `pip` beside `python3`.
DOCKERFILE = """\
FROM scratch
ADD base.tar /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
RUN ln -s python3 /usr/bin/python
CMD ["python3"]
"""


def reference() -> str:
    """The name of the image made here; changes with the recipe."""
    return f"{LOCAL}:in-{hashlib.sha256(repr((RECIPE, DOCKERFILE)).encode()).hexdigest()[:16]}"


def is_hub_reachable() -> bool:
    """Whether Docker Hub's registry accepts a connection within 3 s."""
    try:
        socket.create_connection(("registry-1.docker.io", 443), timeout=3).close()
    except OSError:
        return False
    return True


def make_archive(folder: Path) -> None:
    """Write `base.tar` and a Dockerfile into `folder`. 40 to 80 s."""
    if not succeeds("mmdebstrap", "--version"):
        if os.geteuid():
            raise BuildError(
                "mmdebstrap is not installed: apt-get install mmdebstrap, or pass BASE_IMAGE=<a Python image>"
            )
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ("apt-get", "install", "-y", "-qq", "--no-install-recommends", "mmdebstrap")
        if not succeeds(*install, environ=quiet):
            run("apt-get", "update", "-qq")
            run(*install, environ=quiet)
    run(*RECIPE, str(folder / "base.tar"))
    (folder / "Dockerfile").write_text(DOCKERFILE, encoding="utf-8")
