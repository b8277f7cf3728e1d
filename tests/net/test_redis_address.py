"""Redis URLs are read as redis-py and hosters write them, and refused with one line."""

from pathlib import Path
from typing import Any

import pytest

from quarterdeck.net.redis_address import RedisAddress, RedisServer, RedisTLS

H = (RedisServer("h", 6379),)
H7 = (RedisServer("h", 7),)


def an_address(servers: tuple[RedisServer, ...], **changes: Any) -> RedisAddress:
    return RedisAddress(**({"kind": "server", "servers": servers} | changes))


def on_socket(path: str) -> tuple[RedisServer, ...]:
    return (RedisServer(path=path),)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://h", an_address(H)),
        ("redis://h:7/3", an_address(H7, database=3)),
        ("redis://h?db=3", an_address(H, database=3)),
        ("redis://:p%40w@h", an_address(H, password="p@w")),
        ("rediss://u:p@h:7/", an_address(H7, tls=RedisTLS(), username="u", password="p")),
        ("redis://[::1]:7", an_address((RedisServer("::1", 7),))),
        ("redis://", an_address((RedisServer("127.0.0.1", 6379),))),
        ("unix:///a/b.sock", an_address(on_socket("/a/b.sock"))),
        ("unix:///a%20b/c.sock?db=2", an_address(on_socket("/a b/c.sock"), database=2)),
        ("unix://u:p@/a.sock", an_address(on_socket("/a.sock"), username="u", password="p")),
        ("unix:///a@b.sock", an_address(on_socket("/a@b.sock"))),
        (
            "rediss://h?ssl_ca_certs=/ca.pem&ssl_cert_reqs=none&ssl_certfile=/c&ssl_keyfile=/k&ssl_check_hostname=false",
            an_address(H, tls=RedisTLS("/ca.pem", "none", False, "/c", "/k")),
        ),
        (
            "redis+sentinel://u:p@a,b:7,[::1]:8/mymaster/2?sentinel_username=s&sentinel_password=t",
            RedisAddress(
                "sentinel",
                (RedisServer("a", 26379), RedisServer("b", 7), RedisServer("::1", 8)),
                "u",
                "p",
                2,
                primary_name="mymaster",
                sentinel_username="s",
                sentinel_password="t",
            ),
        ),
        ("redis+sentinel://a/my", RedisAddress("sentinel", (RedisServer("a", 26379),), primary_name="my")),
        (
            "rediss+cluster://:p@a:7000,b",
            RedisAddress("cluster", (RedisServer("a", 7000), RedisServer("b", 6379)), None, "p", tls=RedisTLS()),
        ),
    ],
)
def test_an_address_is_read_from_a_url(url: str, address: RedisAddress) -> None:
    assert RedisAddress.parse(url) == address


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "begins with"),
        ("http://h", "begins with"),
        ("h:6379", "begins with"),
        ("redis://h:port", "the port"),
        ("redis://h:0", "the port"),
        ("redis://h:65536", "the port"),
        ("redis://h:99999999999", "the port"),
        ("redis://h/x", "database"),
        ("redis://h/-1", "database"),
        ("unix:///a?db=x", "database"),
        ("redis://a,b", "one host"),
        ("redis+sentinel://a:26379", "the primary's name"),
        ("redis+sentinel://a:26379/0/0/0", "database"),
        ("redis+cluster://a/1", "only database 0"),
        ("redis://h?health_check_interval=3", "'health_check_interval'"),
        ("redis://h?sentinel_password=x", "'sentinel_password'"),
        ("redis://h?ssl_ca_certs=/x", "needs rediss"),
        ("rediss://h?ssl_cert_reqs=maybe", "ssl_cert_reqs"),
        ("rediss://h?ssl_keyfile=/x", "needs ssl_certfile"),
        ("rediss://h?ssl_check_hostname=1", "ssl_check_hostname"),
        ("redis://[::1", "can't be read"),
    ],
)
def test_what_is_no_address_is_refused(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=r"[Rr]edis") as caught:
        RedisAddress.parse(url)
    assert reason in str(caught.value)


@pytest.mark.parametrize("scheme", ["redis", "rediss", "redis+sentinel", "redis+cluster"])
@pytest.mark.parametrize(
    "password", ["can/ary", "can#ary", "can?ary", "can@ary/b", "a?canary=b", "\N{DEGREE SIGN}[canary"]
)
def test_no_piece_of_a_password_is_shown(scheme: str, password: str) -> None:
    """As written by hand, without percent-encoding."""
    try:
        address = RedisAddress.parse(f"{scheme}://:{password}@h:6379/0")
    except ValueError as error:
        assert "ary" not in str(error)
    else:
        assert "ary" not in repr(address)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    address = RedisAddress.parse(f"rediss://h?ssl_ca_certs={tmp_path}/ca.pem")
    with pytest.raises(OSError, match="No such file"):
        address.ssl_context()


def test_certificates_are_verified_unless_the_url_says_no() -> None:
    context = RedisAddress.parse("rediss://h").ssl_context()
    assert context is not None
    assert (context.verify_mode.name, context.check_hostname) == ("CERT_REQUIRED", True)
    context = RedisAddress.parse("rediss://h?ssl_cert_reqs=none").ssl_context()
    assert context is not None
    assert (context.verify_mode.name, context.check_hostname) == ("CERT_NONE", False)
    assert RedisAddress.parse("redis://h").ssl_context() is None


def test_a_user_without_a_password_is_authenticated_as_that_user() -> None:
    assert RedisAddress.parse("redis://me@h").auth_command() == ("AUTH", "me", "")
    assert RedisAddress.parse("redis://h").auth_command() is None


@pytest.mark.parametrize("words", ["ssl_ca_certs=/no/such.pem", "ssl_certfile=/no/such.pem"])
def test_a_file_that_cannot_be_read_is_named(words: str) -> None:
    with pytest.raises(OSError, match=r"/no/such\.pem"):
        RedisAddress.parse(f"rediss://h?{words}").ssl_context()
