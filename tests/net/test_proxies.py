"""The environment's proxies: which origins they are for, and requests through them."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.net.fetching import failure, fetch
from tests.net.forward_proxy import ForwardProxy
from tests.net.upstream import Upstream, answering, response

from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.http_origin import Origin, ProxyUse
from quarterdeck.net.proxies import Proxies, ProxyError

HOSTED = "https://api.example.com/v1"


def is_proxied(url: str, no_proxy: str = "", proxy: ProxyUse = "auto") -> bool:
    variables = {"HTTPS_PROXY": "http://s:1", "HTTP_PROXY": "http://p:1", "NO_PROXY": no_proxy}
    return Proxies(variables).of(Origin.parse(url, proxy)) is not None


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, None),
        ({"HTTP_PROXY": "http://p:1"}, None),
        ({"HTTPS_PROXY": "http://p:1"}, ("p", 1, False)),
        ({"HTTPS_PROXY": "p:3128"}, ("p", 3128, False)),
        ({"HTTPS_PROXY": "https://p"}, ("p", 443, True)),
        ({"ALL_PROXY": "http://[::1]:9/"}, ("::1", 9, False)),
        ({"https_proxy": "http://low", "HTTPS_PROXY": "http://high"}, ("low", 80, False)),
        ({"HTTPS_PROXY": ""}, None),
    ],
)
def test_a_proxy_is_found_in_the_variables(variables: dict[str, str], found: tuple[str, int, bool] | None) -> None:
    proxy = Proxies(variables).of(Origin.parse(HOSTED))
    assert (proxy and proxy[:3]) == found
    assert bool(Proxies(variables)) == any(variables.values())


@pytest.mark.parametrize("url", ["socks5://p:1", "ftp://p", "http://", "http://p:99999"])
def test_a_proxy_that_can_not_be_used_is_an_error_without_its_password(url: str) -> None:
    with pytest.raises(ProxyError) as caught:
        Proxies({"HTTPS_PROXY": url.replace("://", "://u:secret@")}).of(Origin.parse(HOSTED))
    assert "HTTPS_PROXY" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("no_proxy", "host", "is_direct"),
    [
        ("*", "api.example.com", True),
        ("example.com", "api.example.com", True),
        (".example.com", "api.example.com", True),
        ("*.example.com", "api.example.com", True),
        ("EXAMPLE.com", "API.example.COM.", True),
        ("ample.com", "api.example.com", False),
        ("api.example.com.evil", "api.example.com", False),
        ("a.b, example.com", "example.com", True),
        ("a.b example.com", "example.com", True),
        ("example.com:443", "example.com", True),
        ("example.com:8443", "example.com", False),
        ("8.8.0.0/16", "8.8.4.4", True),
        ("8.8.0.0/16", "8.9.4.4", False),
        ("8.8.4.4", "8.8.4.4", True),
        ("2001:db8::/32", "[2001:db8::7]", True),
        ("[2001:db8::7]", "[2001:db8::7]", True),
        ("2001:db9::/32", "[2001:db8::7]", False),
        ("8.4", "8.8.8.4", False),
        ("", "api.example.com", False),
        (",, ,", "api.example.com", False),
    ],
)
def test_no_proxy_names_hosts_addresses_and_networks(no_proxy: str, host: str, is_direct: bool) -> None:
    assert is_proxied(f"https://{host}/", no_proxy) is not is_direct


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "x.localhost", "127.0.0.1", "127.9.9.9", "[::1]", "10.42.0.7", "192.168.1.1", "172.20.0.1"),
        *("169.254.1.1", "100.64.0.1", "[fd00::1]", "[::ffff:10.0.0.1]", "redis", "e.ns.svc", "e.ns.svc.cluster.local"),
    ],
)
def test_loopback_and_cluster_addresses_are_reached_directly_unless_asked(host: str) -> None:
    for scheme in ("http", "https"):
        assert not is_proxied(f"{scheme}://{host}:8000")
        assert is_proxied(f"{scheme}://{host}:8000", proxy="always")
        assert not is_proxied(f"{scheme}://api.example.com", proxy="never")


@asynccontextmanager
async def through(proxy: ForwardProxy, *, user: str = "") -> AsyncIterator[HttpClient]:
    url = proxy.url.replace("://", f"://{user}@") if user else proxy.url
    client = HttpClient(sweep_seconds=0.01, proxies=Proxies({"http_proxy": url, "https_proxy": url}))
    yield client
    await client.close()


async def test_plain_requests_go_to_the_proxy_in_absolute_form() -> None:
    async with (
        Upstream(answering(response(b"a"), response(b"b"))) as upstream,
        ForwardProxy(upstream.port) as proxy,
        through(proxy, user="me:p%40ss") as client,
    ):
        origin = Origin.parse("http://api.example.com:8080/base")
        assert await fetch(client, origin) == b"a"
        assert await fetch(client, origin) == b"b"
        head, second = proxy.heads
    assert head == second
    assert head.startswith(b"POST http://api.example.com:8080/base/v1/x HTTP/1.1\r\n")
    assert b"\r\nhost: api.example.com:8080\r\n" in head
    assert b"\r\nproxy-authorization: Basic bWU6cEBzcw==\r\n" in head
    assert upstream.connections == 1, "the connection is kept"


async def test_requests_by_tls_go_through_a_tunnel(
    tls: ssl.SSLContext, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[1]))
    async with (
        Upstream(answering(response(b"a"), response(b"b")), tls=tls) as upstream,
        ForwardProxy(upstream.port) as proxy,
        through(proxy, user="me:secret") as client,
    ):
        origin = Origin("127.0.0.1", 443, tls=True, proxy="always")
        assert await fetch(client, origin) == b"a"
        assert await fetch(client, origin) == b"b"
        (head,) = proxy.heads
        assert head.startswith(b"CONNECT 127.0.0.1:443 HTTP/1.1\r\nhost: 127.0.0.1:443\r\nproxy-authorization: Basic ")
        assert b"proxy-authorization" not in upstream.requests[0].head
        assert upstream.connections == 1


@pytest.mark.parametrize("status", [403, 407, 502])
async def test_a_proxy_that_refuses_is_not_the_servers_failure(status: int) -> None:
    async with (
        Upstream(answering()) as upstream,
        ForwardProxy(upstream.port, status=status) as proxy,
        through(proxy, user="me:secret") as client,
    ):
        error = await failure(client, Origin.parse(HOSTED))
        assert (error.sent, str(error)) == (False, f"the proxy refused the tunnel with status {status}")
        assert upstream.requests == []


async def test_a_proxy_that_is_away_or_misnamed_is_named_as_the_cause() -> None:
    for url, words in (("http://127.0.0.1:1", "through the proxy failed"), ("socks5://p", "only http and https")):
        client = HttpClient(proxies=Proxies({"https_proxy": url}))
        error = await failure(client, Origin.parse(HOSTED))
        assert words in str(error)
        assert not error.sent
        await client.close()


def test_a_variable_that_names_no_usable_proxy_is_a_line_for_the_log() -> None:
    (text,) = Proxies({"ALL_PROXY": "socks5h://me:secret@p:1080"}).problems()
    assert text.startswith("ALL_PROXY names a socks5h proxy; only http and https are supported")
    assert "secret" not in text
    assert Proxies({"HTTPS_PROXY": "http://p:3128", "http_proxy": "p"}).problems() == []
    assert Proxies({}).problems() == []
