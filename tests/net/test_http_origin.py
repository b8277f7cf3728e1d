"""Where a server listens, and what a request to it begins with."""

import httptools
import pytest

from quarterdeck.net.http_origin import Origin, request_head


@pytest.mark.parametrize(
    ("url", "origin", "authority"),
    [
        ("http://h", Origin("h", 80, tls=False), "h"),
        ("http://h:80/", Origin("h", 80, tls=False), "h"),
        ("http://h:8000/a/b/", Origin("h", 8000, tls=False, prefix="/a/b"), "h:8000"),
        ("https://h", Origin("h", 443, tls=True), "h"),
        ("http://[::1]:9", Origin("::1", 9, tls=False), "[::1]:9"),
    ],
)
def test_an_origin_is_read_from_a_url(url: str, origin: Origin, authority: str) -> None:
    assert Origin.parse(url) == origin
    assert origin.authority == authority


def test_a_request_head_is_http() -> None:
    head = request_head("POST", Origin.parse("http://h:1/base"), "/v1/x", [(b"a", b"b")])

    class Read:
        def __init__(self) -> None:
            self.headers: dict[bytes, bytes] = {}
            self.url = b""

        def on_url(self, url: bytes) -> None:
            self.url = url

        def on_header(self, name: bytes, value: bytes) -> None:
            self.headers[name] = value

    read = Read()
    httptools.HttpRequestParser(read).feed_data(head + b"\r\n")
    assert (read.url, read.headers) == (b"/base/v1/x", {b"host": b"h:1", b"a": b"b"})
