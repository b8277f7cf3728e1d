"""The session of the watches reads what no parser can: lists and events of objects that are nested too deeply."""

import json

import kopf
from tests.net.upstream import Peer, Upstream, response

from quarterdeck.operator.watch_session import session

DEEP = '{"a":' * 5000 + "1" + "}" * 5000
FINE, BAD = '{"kind": "Model", "name": "fine"}', f'{{"kind": "Model", "name": "bad", "spec": {DEEP}}}'


async def test_a_list_is_parsed_without_what_is_too_deep() -> None:
    async def answer(peer: Peer) -> None:
        await peer.request()
        await peer.say(response(f'{{"items": [{FINE}, {BAD}]}}'.encode()))

    async with Upstream(answer) as server:
        url = f"http://127.0.0.1:{server.origin.port}"
        async with session(kopf.ConnectionInfo(server=url)) as client, client.get(f"{url}/models") as found:
            items = (await found.json())["items"]
    assert [each["name"] for each in items] == ["fine", "bad"]


async def test_each_event_is_a_line_that_can_be_parsed() -> None:
    lines = "".join(f'{{"type": "ADDED", "object": {each}}}\n' for each in (FINE, BAD, FINE)).encode()
    pieces = [lines[at : at + 1000] for at in range(0, len(lines), 1000)]

    async def answer(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
        for piece in pieces:
            await peer.say(piece)

    got = b""
    async with Upstream(answer) as server:
        url = f"http://127.0.0.1:{server.origin.port}"
        async with session(kopf.ConnectionInfo(server=url)) as client, client.get(url) as found:
            async for chunk in found.content.iter_chunked(700):
                got += chunk
    events = [json.loads(line) for line in got.splitlines()]
    assert [each["object"]["name"] for each in events] == ["fine", "bad", "fine"]
