import socket

import pytest

from quarterdeck.net.sockets import listen


def test_a_connection_is_accepted_at_once() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        accepted.close()


def test_a_port_in_use_is_an_error() -> None:
    with listen("127.0.0.1", 0) as listener, pytest.raises(OSError, match="in use"):
        listen(*listener.getsockname())


def test_an_ipv6_address_is_bound() -> None:
    with listen("::1", 0) as listener:
        assert listener.family == socket.AF_INET6
