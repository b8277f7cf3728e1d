"""Redis URLs are read as redis-py and hosters write them, and refused with one line."""

import pytest

from quarterdeck.net.redis_address import RedisAddress


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://h", RedisAddress(None, "h", 6379, False, None, None, 0)),
        ("redis://h:7/3", RedisAddress(None, "h", 7, False, None, None, 3)),
        ("redis://:p%40w@h", RedisAddress(None, "h", 6379, False, None, "p@w", 0)),
        ("rediss://u:p@h:7/", RedisAddress(None, "h", 7, True, "u", "p", 0)),
        ("redis://[::1]:7", RedisAddress(None, "::1", 7, False, None, None, 0)),
        ("unix:///a/b.sock", RedisAddress("/a/b.sock", "127.0.0.1", 6379, False, None, None, 0)),
        ("unix:///a%20b/c.sock?db=2", RedisAddress("/a b/c.sock", "127.0.0.1", 6379, False, None, None, 2)),
        ("unix://u:p@/a.sock", RedisAddress("/a.sock", "127.0.0.1", 6379, False, "u", "p", 0)),
    ],
)
def test_an_address_is_read_from_a_url(url: str, address: RedisAddress) -> None:
    assert RedisAddress.parse(url) == address


@pytest.mark.parametrize(
    "url", ["", "http://h", "h:6379", "redis://h:port", "redis://h/x", "unix:///a?db=x", "redis://h/-1"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"Redis URL|[Pp]ort"):
        RedisAddress.parse(url)
