"""The limit of file descriptors is raised, and a lack of them is told apart from a failing peer."""

import errno
import subprocess
import sys

import pytest

from quarterdeck.net.descriptors import LEAST_CONNECTIONS, MOST_CONNECTIONS, RESERVED, DescriptorLimit, is_own_lack

RAISE = (
    "from quarterdeck.net.descriptors import raise_limit; import resource; "
    "print(raise_limit(), resource.getrlimit(resource.RLIMIT_NOFILE))"
)


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    command = ["prlimit", "--nofile=200:900", sys.executable, "-c", RAISE]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "DescriptorLimit(limit=900, before=200) (900, 900)"


@pytest.mark.parametrize(
    ("limit", "connections"), [(64, LEAST_CONNECTIONS), (256, (256 - RESERVED) // 2), (65536, MOST_CONNECTIONS)]
)
def test_clients_and_engines_share_what_is_not_reserved(limit: int, connections: int) -> None:
    assert DescriptorLimit(limit, limit).connections == connections


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOMEM])
def test_a_lack_of_this_process_is_its_own(number: int) -> None:
    assert is_own_lack(OSError(number, "x"))
    assert not is_own_lack(ConnectionRefusedError(errno.ECONNREFUSED, "x"))
