import asyncio
import socket

import pytest

from quarterdeck.net.sockets import discard_unread, has_unread, listen, listen_problem


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


def test_all_addresses_are_those_of_ipv4_as_well() -> None:
    with listen("::", 0) as listener, socket.create_connection(("127.0.0.1", listener.getsockname()[1])):
        accepted, _ = listener.accept()
        accepted.close()


def test_why_a_process_cannot_listen_is_the_port_or_the_address() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        problem = listen_problem("127.0.0.1", port)
        assert problem is not None
        assert (problem.text, problem.is_port) == (f"127.0.0.1:{port} is already in use", True)
    assert listen_problem("127.0.0.1", port) is None
    for host in ("192.0.2.1", "no-such-host.invalid", "2001:db8::1"):
        problem = listen_problem(host, port)
        assert problem is not None
        assert problem.text.startswith("cannot listen on ")
        assert not problem.is_port


async def test_a_close_after_unread_bytes_are_discarded_is_no_reset() -> None:
    here, there = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=here)
    transport.pause_reading()
    assert not has_unread(transport)
    with there:
        there.sendall(b"x" * 100_000)
        assert has_unread(transport)
        discard_unread(transport)
        assert not has_unread(transport)
        transport.close()
        await asyncio.sleep(0)  # it is closed in the next turn
        there.settimeout(5)
        assert there.recv(1) == b""
    assert not has_unread(transport), "a closed transport has no socket"
    discard_unread(transport)
