"""Forward proxies of the environment: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, as curl reads them.

Loopback and cluster addresses are reached directly, also without NO_PROXY: a container's variables mostly come from its
node, and a proxy outside can't reach the cluster's engines. An origin with `proxy: always` is an exception.
"""

import base64
import ipaddress
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from quarterdeck.net.http_origin import Origin

_LOCAL_NETWORKS = tuple(
    map(
        ipaddress.ip_network,
        (
            *("127.0.0.0/8", "::1/128", "0.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
            *("100.64.0.0/10", "169.254.0.0/16", "fc00::/7", "fe80::/10"),
        ),
    )
)
_LOCAL_SUFFIXES = (".localhost", ".local", ".svc")
"""`.cluster.local` is among them."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class ProxyError(ValueError):
    """A proxy variable that can't be used. The message doesn't show its value: it may hold a password."""


class Proxy(NamedTuple):
    """A forward proxy."""

    host: str
    port: int
    tls: bool
    authorization: bytes = b""
    """The value of Proxy-Authorization. Empty: none."""

    @property
    def header(self) -> bytes:
        """The header line that authorizes a request, or nothing."""
        return b"proxy-authorization: %b\r\n" % self.authorization if self.authorization else b""


class Proxies:
    """Which origins are reached through which proxy."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._urls = {
            scheme: _first(variables, f"{scheme}_proxy", f"{scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY")
            for scheme in ("http", "https")
        }
        self._direct = _Direct(_first(variables, "no_proxy", "NO_PROXY"))

    def __bool__(self) -> bool:
        return any(name for name, _ in self._urls.values())

    def problems(self) -> list[str]:
        """Why variables can't be used, a sentence each, for the log. Requests that need such a proxy fail."""
        found = []
        for name, url in dict(self._urls.values()).items():
            try:
                _parse(name, url)
            except ProxyError as error:
                if url:
                    found.append(f"{error}; addresses that need it can't be reached (NO_PROXY, or `proxy: never`)")
        return found

    def of(self, origin: Origin) -> Proxy | None:
        """The proxy for an origin. None: it is reached directly. Raises ProxyError."""
        name, url = self._urls["https" if origin.tls else "http"]
        if not url or origin.proxy == "never":
            return None
        if origin.proxy == "auto" and (_is_local(origin.host) or self._direct.names(origin.host, origin.port)):
            return None
        return _parse(name, url)


class _Direct:
    """NO_PROXY: hosts with their subdomains, IP addresses and networks, each perhaps with a port; `*` is every host."""

    def __init__(self, found: tuple[str, str]) -> None:
        self._hosts: list[tuple[str, int | None]] = []
        self._networks: list[Network] = []
        self._is_all = False
        for entry in found[1].replace(",", " ").split():
            self._is_all |= entry == "*"
            try:
                self._networks.append(ipaddress.ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                host, port = _split_port(entry)
                self._hosts.append((_normalized(host.removeprefix("*").lstrip(".")), port))

    def names(self, host: str, port: int) -> bool:
        host = _normalized(host)
        address = _address(host)
        if self._is_all or (address is not None and any(address in each for each in self._networks)):
            return True
        for name, only in self._hosts:
            is_named = host == name or (address is None and bool(name) and host.endswith("." + name))
            if is_named and only in (None, port):
                return True
        return False


def _first(variables: Mapping[str, str], *names: str) -> tuple[str, str]:
    """The first of these variables that is set, with its name; lower case goes first, as for curl."""
    return next(((name, variables[name]) for name in names if variables.get(name)), ("", ""))


def _parse(name: str, url: str) -> Proxy:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host:
        raise ProxyError(f"{name} is not a URL")
    if parts.scheme not in ("http", "https"):
        raise ProxyError(f"{name} names a {parts.scheme} proxy; only http and https are supported")
    authorization = b""
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = b"Basic " + base64.b64encode(user.encode())
    is_tls = parts.scheme == "https"
    return Proxy(host, port or (443 if is_tls else 80), is_tls, authorization)


def _is_local(host: str) -> bool:
    """Whether it is a loopback or cluster address: an IP of a private network, a Service's name, a bare name."""
    host = _normalized(host)
    if (address := _address(host)) is not None:
        return any(address in network for network in _LOCAL_NETWORKS)
    return "." not in host or host.endswith(_LOCAL_SUFFIXES)


def _address(host: str) -> IPAddress | None:
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, ipaddress.IPv6Address) else found


def _normalized(host: str) -> str:
    return host.strip("[]").partition("%")[0].rstrip(".").lower()


def _split_port(entry: str) -> tuple[str, int | None]:
    host, colon, port = entry.rpartition(":")
    return (
        (host, int(port)) if colon and port.isdecimal() and "]" not in port and host.count(":") == 0 else (entry, None)
    )
