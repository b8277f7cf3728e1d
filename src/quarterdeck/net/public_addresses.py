"""Which addresses are on the public Internet, and host names resolved to those only.

For requests to URLs that users give (webhooks): they must not reach the platform's own network. A name is checked as it
is resolved for the connection, which then goes to the address that was checked: an answer that changes afterwards (DNS
rebinding) has no effect.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

THREADS = 8
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_LOCAL_SUFFIXES = (".localhost", ".local", ".internal", ".svc", ".cluster.local", ".home.arpa", ".lan")


class NotPublicError(OSError):
    """A host with no public address."""


def is_public(address: Address) -> bool:
    """Whether an address is reached over the Internet only. Pure. IPv4 addresses within IPv6 ones count as IPv4."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def may_be_public(host: str) -> bool:
    """Whether a URL's host may have a public address: it is no private address and no name of a local network. Pure."""
    name = host.strip("[]").rstrip(".").lower()
    try:
        return is_public(ipaddress.ip_address(name.partition("%")[0]))
    except ValueError:
        pass
    if _is_number(name.rpartition(".")[2]):
        return False  # 127.1, 0x7f.1, 2130706433: addresses in spellings that only resolvers read
    return "." in name and not f".{name}".endswith(_LOCAL_SUFFIXES)


class PublicResolver:
    """Resolves hosts to their public addresses. `allows_private`: to all of them.

    It has threads of its own: a name whose servers do not answer holds a thread for longer than any caller waits, and
    the loop's own threads have other work.
    """

    def __init__(self, allows_private: Callable[[], bool] = lambda: False) -> None:
        self._allows_private = allows_private
        self._threads = ThreadPoolExecutor(THREADS, "resolver")

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """The addresses to try, in order. Raises OSError, NotPublicError among them."""
        resolve = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, resolve)
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        if not self._allows_private():
            addresses = [each for each in addresses if is_public(ipaddress.ip_address(each.partition("%")[0]))]
        if not addresses:
            raise NotPublicError("the host has no public address")
        return addresses

    def close(self) -> None:
        """Names that are being resolved are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _is_number(label: str) -> bool:
    return label.isdecimal() or label.startswith("0x")
