"""What the computing routes share: read the body, run the engine request, deliver its output."""

import os
from typing import Any

from quarterdeck.simulator.client_connection import ClientConnection
from quarterdeck.simulator.engine import Engine
from quarterdeck.simulator.faults import Faults
from quarterdeck.simulator.protocol.answers import AnswerWriter
from quarterdeck.simulator.protocol.prepared_request import completion_limit
from quarterdeck.simulator.protocol.requests import T, read
from quarterdeck.simulator.protocol.usage import usage_of
from quarterdeck.simulator.routes import delivery
from quarterdeck.simulator.scheduling.decoding import Decoding
from quarterdeck.simulator.scheduling.engine_request import EngineRequest


async def receive(connection: ClientConnection, engine: Engine, kind: type[T]) -> T:
    return read(await connection.body(engine.config.max_request_body_size_mb << 20), kind)


async def generate(
    connection: ClientConnection,
    engine: Engine,
    decoding: Decoding,
    writer: AnswerWriter,
    faults: Faults,
    *,
    is_streaming: bool,
) -> None:
    """Run the request on the engine and deliver its output."""
    try:
        decoding.enqueue()
        connection.cancel_on_disconnect()
        deliver = delivery.stream if is_streaming else delivery.plain
        await deliver(connection, engine, decoding, writer, faults)
    finally:
        decoding.close(aborted=not decoding.is_finished())


async def prefill(
    connection: ClientConnection, engine: Engine, prompts: list[list[str]], faults: Faults
) -> dict[str, Any]:
    """Run prompts that generate nothing. Returns their `usage` field, {} where a fault omits it."""
    for prompt in prompts:
        completion_limit(
            engine.config, len(prompt) - 1, None
        )  # -1: nothing is generated, so the prompt may fill the context
    request = EngineRequest(prompts, [])
    decoding = Decoding(engine, request)
    try:
        decoding.enqueue()
        connection.cancel_on_disconnect()
        await decoding.begin()
        await decoding.advance()
    finally:
        decoding.close(aborted=not decoding.is_finished())
    usage = usage_of(request.prompt_tokens, 0, None, faults)
    return {} if usage is None else {"usage": usage}


def response_id(connection: ClientConnection, prefix: str) -> str:
    """Build an id as vLLM does: the prefix and the caller's x-request-id, or a random one."""
    return f"{prefix}-{connection.header(b'x-request-id') or os.urandom(16).hex()}"
