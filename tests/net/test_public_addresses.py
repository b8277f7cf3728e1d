"""Addresses of private networks are recognised in every spelling, and names are checked as they are resolved."""

import asyncio
import ipaddress
import socket
import threading
from typing import Any

import pytest

from quarterdeck.net.public_addresses import NotPublicError, PublicResolver, is_public, may_be_public


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))
    assert may_be_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.0.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.168.1.1", "100.64.0.1"),
        *("192.0.2.1", "198.18.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1"),
        *("::", "::1", "fe80::1", "fc00::1", "fec0::1", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "2002:7f00:1::", "64:ff9b::a00:1", "64:ff9b::7f00:1"),
    ],
)
def test_all_others_are_not(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    assert not may_be_public(address)


@pytest.mark.parametrize(
    "host", ["localhost", "redis", "a.svc", "x.cluster.local", "h.internal", "127.1", "0x7f.1", "a.0x7f"]
)
def test_local_names_and_other_spellings_of_addresses_are_not_public(host: str) -> None:
    assert not may_be_public(host)
    assert not may_be_public(host.upper() + ".")


async def test_only_public_addresses_of_a_name_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[str] = []

    def resolve(*_: Any, **__: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in answers]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    answers[:] = ["127.0.0.1", "8.8.8.8", "10.0.0.1"]
    public, all_of_them = PublicResolver(), PublicResolver(lambda: True)
    assert list(await public("example.com", 80)) == ["8.8.8.8"]
    assert len(await all_of_them("example.com", 80)) == 3
    answers[:] = ["10.0.0.1"]
    with pytest.raises(NotPublicError):
        await public("example.com", 80)
    public.close()
    all_of_them.close()


async def test_names_whose_servers_do_not_answer_leave_the_loops_threads_free(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        answer.wait(20)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    resolver = PublicResolver()
    waiting = [asyncio.create_task(resolver("example.com", 80)) for _ in range(64)]  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert await asyncio.to_thread(lambda: "free") == "free"
    for task in waiting:
        task.cancel()
    answer.set()
    await asyncio.gather(*waiting, return_exceptions=True)
    resolver.close()
