"""A body read within its limit, a response sent whole."""

from collections.abc import Iterator

import pytest

from quarterdeck.errors import RequestTooLargeError
from quarterdeck.net.asgi import DRAIN_FACTOR, ClientGoneError, Message, read_body, send_response


class Client:
    """Sends pieces, then hangs up where the body is not `whole`."""

    def __init__(self, *pieces: bytes, whole: bool = True) -> None:
        self.unread = len(pieces)
        self._messages = self._send(pieces, whole)

    async def receive(self) -> Message:
        return next(self._messages)

    def _send(self, pieces: tuple[bytes, ...], whole: bool) -> Iterator[Message]:
        for piece in pieces:
            self.unread -= 1
            yield {"type": "http.request", "body": piece, "more_body": self.unread > 0 or not whole}
        yield {"type": "http.disconnect"}


async def test_a_body_is_joined_from_its_pieces() -> None:
    assert await read_body(Client(b"ab", b"", b"c").receive, 3) == b"abc"
    assert await read_body(Client(b"abc").receive, 3) == b"abc"


@pytest.mark.parametrize("content_length", [None, 4], ids=["chunked", "sized"])
@pytest.mark.parametrize("pieces", [(b"abcd",), (b"ab", b"cd")])
async def test_a_body_above_the_limit_is_read_to_its_end_and_refused(
    pieces: tuple[bytes, ...], content_length: int | None
) -> None:
    client = Client(*pieces)
    with pytest.raises(RequestTooLargeError) as refused:
        await read_body(client.receive, 3, content_length)
    assert client.unread == 0
    assert "connection" not in refused.value.headers


@pytest.mark.parametrize("content_length", [None, 1000], ids=["chunked", "sized"])
async def test_a_body_far_above_the_limit_is_not_read_and_closes_the_connection(content_length: int | None) -> None:
    client = Client(*[b"x" * 10] * 100)
    with pytest.raises(RequestTooLargeError) as refused:
        await read_body(client.receive, 10, content_length)
    assert client.unread >= 100 - DRAIN_FACTOR - 4
    assert refused.value.headers == {"connection": "close"}


async def test_a_client_that_hangs_up_within_its_body_is_an_error() -> None:
    with pytest.raises(ClientGoneError):
        await read_body(Client(b"ab", whole=False).receive, 3)


async def test_a_response_says_its_length() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await send_response(send, 201, b"abc", [(b"content-type", b"text/plain")])
    start, body = sent
    assert (start["status"], body["body"]) == (201, b"abc")
    assert start["headers"] == [(b"content-type", b"text/plain"), (b"content-length", b"3")]
