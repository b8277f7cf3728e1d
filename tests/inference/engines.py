"""Engines that fail, break off, hang or wait, as scripts for an `Upstream`."""

import asyncio

from tests.inference.making import DONE, SAID, as_json
from tests.net.upstream import Peer, Script, answering, chunk, response, stream_head, streamed

ERROR = b'{"error":{"message":"boom","type":"InternalServerError","code":500}}'


def counting(count: int) -> bytes:
    """An answer of `/tokenize`."""
    return response(as_json({"count": count, "max_model_len": 2048, "tokens": []}))


def and_wait(*events: bytes) -> Script:
    """Begin a stream, then send nothing until the client hangs up."""

    async def script(peer: Peer) -> None:
        await peer.say(stream_head() + b"".join(map(chunk, events)))
        await peer.until_gone()

    return script


def and_break(*events: bytes) -> Script:
    """Begin a stream, then reset the connection."""

    async def script(peer: Peer) -> None:
        await peer.say(stream_head() + b"".join(map(chunk, events)))
        await asyncio.sleep(0.02)
        peer.reset()

    return script


async def hang_up(peer: Peer) -> None:
    peer.reset()


async def silence(peer: Peer) -> None:
    await peer.until_gone()


BREAKS: dict[str, tuple[Script | bytes, str]] = {
    "it breaks off": (and_break(*SAID[:2]), "engine_error"),
    "it ends without a word": (streamed(*SAID[:2]), "engine_error"),
    "it ends after the reason": (streamed(*SAID), "engine_error"),
    "it says that it is done, and was not": (streamed(*SAID[:2], DONE), "engine_error"),
    "it sends an error": (streamed(*SAID[:2], b"data: " + ERROR + b"\n\n", DONE), "engine_error"),
    "it sends an error in the same breath": (
        stream_head() + chunk(b"".join(SAID[:2]) + b"data: " + ERROR + b"\n\n" + DONE) + chunk(b""),
        "engine_error",
    ),
    "it sends what is no JSON": (streamed(*SAID[:2], b"data: {oops\n\n", DONE), "engine_error"),
    "it stops in the middle of an event": (streamed(*SAID[:2], b'data: {"choices":'), "engine_error"),
}


class Held:
    """An engine that holds each answer until its gate is set."""

    def __init__(self, *answers: bytes) -> None:
        self.gates = [asyncio.Event() for _ in answers]
        self.script: Script = answering(*map(self._held, answers, self.gates))

    @staticmethod
    def _held(said: bytes, gate: asyncio.Event) -> Script:
        async def script(peer: Peer) -> None:
            await gate.wait()
            await peer.say(said)

        return script
