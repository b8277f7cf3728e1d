"""Embeddings of hosted servers: encoded as the caller asks, whatever the server can."""

import pytest
from tests.inference.bench import Bench
from tests.net.upstream import Peer, Upstream, response

from quarterdeck.inference.call import Operation
from quarterdeck.protocol import sse

ASKED = {"model": "m", "input": "a", "encoding_format": "base64"}
FLOATS = b'{"object":"list","data":[{"index":0,"embedding":[0.5,-1.0]}],"model":"up"}'
EMPTY = b'{"object":"list","data":[],"model":"up","usage":{"prompt_tokens":1,"total_tokens":1}}'
UNKNOWN = b'{"error":{"message":"Unsupported parameter: encoding_format","param":"encoding_format"}}'


@pytest.mark.parametrize(("body", "status"), [(EMPTY, 200), (UNKNOWN, 400)], ids=["no data", "a refusal"])
async def test_a_server_without_base64_is_asked_for_numbers_from_then_on(
    bench: Bench, body: bytes, status: int
) -> None:
    async def script(peer: Peer) -> None:
        while True:
            asked = (await peer.request()).json
            await peer.say(response(body, status=status) if "encoding_format" in asked else response(FLOATS))

    async with Upstream(script) as hosted:
        bench.add(hosted, kind="openai")
        for _ in range(2):
            reply = await bench.ask(ASKED, operation=Operation.EMBEDDINGS)
            answer = sse.parse_json(reply.body)
            assert answer is not None
            assert answer["data"][0]["embedding"] == "AAAAPwAAgL8="
        assert len(hosted.requests) == 3
    assert [record.usage_source for record in await bench.records()] == ["estimated"] * 2
