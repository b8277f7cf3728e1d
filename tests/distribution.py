"""How tests are distributed to several processes (pytest-xdist): those of one platform or of one file to one process.

They share fixtures: a second process would start them again. A group of their marker `xdist_group` is not used, as
pytest-xdist 3.8 writes it into a private attribute of an item, which pytest 9.2 does not read.
"""

from pathlib import PurePath

from xdist.scheduler import LoadScopeScheduling

STACKS = ("e2e", "faults", "contract", "security")
"""Folders whose tests share a platform. They take longest and come first: at the end of a run one process would work
alone."""


class GroupScheduling(LoadScopeScheduling):
    """A scope is a group."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def group_of(nodeid: str) -> str:
    """The folder of a platform, or the file."""
    path = PurePath(nodeid.partition("::")[0])
    return path.parts[1] if is_of_stack(path) else path.as_posix()


def is_of_stack(path: PurePath) -> bool:
    """`path` is relative to the project."""
    return len(path.parts) > 1 and path.parts[1] in STACKS
