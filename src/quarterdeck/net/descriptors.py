"""File descriptors: the limit of this process, and how many of them connections may take.

A process without a free descriptor can neither accept a connection nor open a file. So the limit is raised as far as
the process may, and connections are bounded below it: each client may need an engine's connection as well, and some
descriptors are kept for everything else.
"""

import errno
import logging
import resource
import socket
from dataclasses import dataclass

log = logging.getLogger(__name__)

RESERVED = 80
"""Descriptors kept for everything but connections to clients and engines: Redis (3), the database (5 connections of 3
files each), health checks (16), connections being refused (16), the spool, the configuration, and some 20 that are
open from the start."""
MOST = 1_048_576
"""The limit is raised to no more than this, the kernel's default of `fs.nr_open`, where the hard limit is higher."""
FEW = 4096
"""Below this a limit is worth a warning: it serves fewer connections than `max_in_flight` requests need."""
LEAST_CONNECTIONS = 8
MOST_CONNECTIONS = 16_384
"""However high the limit is: each takes some 10 KiB of memory, and up to 64 KiB while a head arrives."""
OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})
_OWN_LACK = OUT_OF_DESCRIPTORS | {errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, socket.EAI_SYSTEM}


@dataclass(frozen=True, slots=True)
class DescriptorLimit:
    """The limit in force, and what it was when the process started."""

    limit: int
    before: int

    @property
    def connections(self) -> int:
        """How many connections to clients may be open; as many may be open to engines."""
        return min(MOST_CONNECTIONS, max(LEAST_CONNECTIONS, (self.limit - RESERVED) // 2))


def raise_limit() -> DescriptorLimit:
    """Raise the soft limit of this process to its hard limit."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    limit = MOST if before == resource.RLIM_INFINITY else before
    if wanted > limit:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            limit = wanted
        except (OSError, ValueError):  # the kernel allows less than the limit says (`fs.nr_open`)
            return DescriptorLimit(limit, limit)
    return DescriptorLimit(limit, MOST if before == resource.RLIM_INFINITY else before)


def log_limit(descriptors: DescriptorLimit) -> None:
    """Log the limit in force; a low one as a warning."""
    log.log(
        logging.WARNING if descriptors.limit < FEW else logging.INFO,
        "file descriptors: at most %d (%d at start), so at most %d connections of clients",
        descriptors.limit,
        descriptors.before,
        descriptors.connections,
    )


def is_own_lack(error: OSError) -> bool:
    """Whether a connection failed for a lack of descriptors, ports or memory here, and not because of the peer."""
    return error.errno in _OWN_LACK
