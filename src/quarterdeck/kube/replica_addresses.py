"""Which addresses that an engine door lists are those of replicas.

A door runs in a pod with an image that a Model names. What it lists is called with users' prompts, from pods that may
reach more than it: so a listed address must be that of a worker of its own Model, and the port one of replicas.
"""

import ipaddress
from collections.abc import Container
from urllib.parse import urlsplit

REPLICA_PORTS = range(30000, 31001)
"""Ray Serve's for replicas that are reached directly."""


def is_replica(url: str, hosts: Container[str] | None) -> bool:
    """Whether a listed URL is `http://address:port` of one of these hosts. None: they are not known, and any address is
    taken that is not special to the machine that calls it."""
    try:
        parts = urlsplit(url)
        address = ipaddress.ip_address(parts.hostname or "")
        port = parts.port
    except ValueError:
        return False
    if parts.scheme != "http" or parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        return False
    if port not in REPLICA_PORTS:
        return False
    if hosts is not None:
        return str(address) in hosts
    return not (address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified)
