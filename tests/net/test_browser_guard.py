"""Which requests reach a port that needs no key."""

from typing import Any

import pytest

from quarterdeck.net.asgi import Receive, Scope, Send, send_response
from quarterdeck.net.browser_guard import BrowserGuard


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await send_response(send, 200, b"")


async def messages(*, is_loopback: bool = True, kind: str = "http", **headers: str) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("a refusal reads no body")

    lines = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    await BrowserGuard(app, is_loopback=is_loopback)({"type": kind, "headers": lines}, receive, send)
    return sent


async def status(*, is_loopback: bool = True, **headers: str) -> int:
    return int((await messages(is_loopback=is_loopback, **headers))[0]["status"])


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "http://127.0.0.1:8011", "host": "127.0.0.1:8011"},
        {"origin": "null"},
        {"origin": ""},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
async def test_a_web_page_is_refused(headers: dict[str, str]) -> None:
    for is_loopback in (True, False):
        assert await status(is_loopback=is_loopback, **headers) == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8011", "localhost.evil.example", "127.0.0.1.nip.io", "2130706433", "", "a:b"]
)
async def test_a_name_that_resolves_to_loopback_is_refused(host: str) -> None:
    assert await status(host=host) == 403
    assert await status(host=host, is_loopback=False) == 200, "a service's name in a cluster"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8011", "localhost", "LOCALHOST:8011", "[::1]", "[::1]:8011", "10.0.0.7:30000"]
)
async def test_this_machine_is_served(host: str) -> None:
    assert await status(host=host) == 200
    assert await status(host=host, sec_fetch_site="none") == 200, "typed into the address bar"


async def test_a_second_host_header_is_checked_too() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "headers": [(b"host", b"127.0.0.1"), (b"host", b"evil.example")]}
    await BrowserGuard(app, is_loopback=True)(scope, send, send)  # type: ignore[arg-type]  # receive is not called
    assert sent[0]["status"] == 403


async def test_a_web_socket_of_a_page_is_closed() -> None:
    (message,) = await messages(kind="websocket", origin="https://evil.example")
    assert (message["type"], message["code"]) == ("websocket.close", 1008)
