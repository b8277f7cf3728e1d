"""Delivers an answer, token by token or whole, and applies the request's faults on the way."""

from msgspec.json import encode

from quarterdeck.simulator.client_connection import ClientConnection
from quarterdeck.simulator.engine import Engine
from quarterdeck.simulator.errors import VLLMError
from quarterdeck.simulator.faults import AT_TOKEN, FOREVER, HUGE_BYTES, Fault, Faults
from quarterdeck.simulator.protocol.answers import DONE, AnswerWriter, event
from quarterdeck.simulator.scheduling.decoding import Decoding

PLAIN_STRIDE = 16
"""Tokens per wait of an answer that is not streamed: the client cannot see when each was generated."""

OOM_EXIT_CODE = 137
"""Of a process that the out-of-memory killer ended: 128 + SIGKILL."""

GARBAGE = b'data: {"id":"chatcmpl-garbage","object":"chat.comp\n\n'


def internal_error() -> VLLMError:
    """The error of a request that failed inside vLLM's engine."""
    return VLLMError("Internal server error (simulated)", status=500, type="InternalServerError")


async def stream(
    connection: ClientConnection, engine: Engine, decoding: Decoding, writer: AnswerWriter, faults: Faults
) -> None:
    """Stream the answer as server-sent events."""
    points = sorted((fault for kind, fault in faults.items() if kind in AT_TOKEN), key=lambda fault: fault.token)
    if "malformed" in faults:
        points.insert(0, Fault("garbage"))
    await connection.open_stream()
    await decoding.begin()
    sent = 0
    opening = writer.opening()
    while not decoding.is_finished():
        done = await decoding.advance()
        while points and points[0].token < done:
            fault = points.pop(0)
            before = writer.steps(sent, fault.token)
            if sent or before:
                before = opening + before
                opening = b""
            sent = max(sent, fault.token)
            rest = opening + writer.steps(sent, sent + 1)
            if not await apply_fault(connection, engine, fault, before, rest):
                return
        events = opening + writer.steps(sent, done)
        opening, sent = b"", done
        if decoding.is_finished() and not points:
            decoding.close()
            await connection.end_stream(events + writer.closing() + DONE)
            return
        await connection.write(events)
    for fault in points:  # the answer ended before the fault's token: apply the fault before its end
        if not await apply_fault(connection, engine, fault, b"", writer.closing() + DONE):
            return
    decoding.close()
    await connection.end_stream(writer.closing() + DONE)


async def apply_fault(connection: ClientConnection, engine: Engine, fault: Fault, before: bytes, after: bytes) -> bool:
    """Send `before`, then apply the fault. Returns whether the stream continues.

    `after` is what would have been sent next.
    """
    engine.faults.count(fault.kind)
    if fault.kind == "error":
        await connection.end_stream(before + event(internal_error().body()) + DONE)
        return False
    if fault.kind == "garbage":
        await connection.write(before + GARBAGE)
        return True
    if fault.kind == "huge":
        size = HUGE_BYTES if fault.value is None else int(fault.value)
        choice = {"index": 0, "delta": {"content": "x" * size}, "logprobs": None, "finish_reason": None}
        chunk = {"id": "chatcmpl-huge", "object": "chat.completion.chunk", "created": engine.created}
        await connection.write(before + event(encode(chunk | {"model": engine.config.model, "choices": [choice]})))
        return True
    if before:
        await connection.write(before)
    if fault.kind == "stall":
        await stall(engine, fault)
        return True
    if fault.kind == "crash":
        engine.exit_process(OOM_EXIT_CODE)
        return False
    await connection.cut(reset=fault.kind == "reset", half=after[: len(after) // 2])
    return False


async def plain(
    connection: ClientConnection, engine: Engine, decoding: Decoding, writer: AnswerWriter, faults: Faults
) -> None:
    """Generate the whole answer, then send it."""
    await decoding.begin()
    while not decoding.is_finished():
        await decoding.advance(PLAIN_STRIDE)
        for kind in ("crash", "stall"):
            fault = faults.get(kind)
            if fault is not None and (decoding.done >= fault.token or decoding.is_finished()):
                engine.faults.count(kind)
                if kind == "crash":
                    engine.exit_process(OOM_EXIT_CODE)
                    return
                await stall(engine, fault)
                faults = {name: each for name, each in faults.items() if name != kind}
    decoding.close()
    await send(connection, engine, writer.whole(), faults)


async def send(connection: ClientConnection, engine: Engine, body: bytes, faults: Faults) -> None:
    """Send a response body that is not streamed, as changed by its faults. Raises VLLMError."""
    for kind in ("error", "malformed", "garbage", "wrong-length", "cut", "reset", "huge"):
        if kind in faults:
            engine.faults.count(kind)
    if "error" in faults:
        raise internal_error()
    if "malformed" in faults or "garbage" in faults:
        await connection.respond(body[: len(body) // 2])
    elif "wrong-length" in faults:
        await connection.respond_short(body, 100)
    elif "cut" in faults or "reset" in faults:
        await connection.respond_half(body, reset="reset" in faults)
    elif "huge" in faults:
        size = HUGE_BYTES if faults["huge"].value is None else int(faults["huge"].value)
        await connection.respond(body[:-1] + b',"padding":"' + b"x" * size + b'"}')
    else:
        await connection.respond(body)


async def stall(engine: Engine, fault: Fault) -> None:
    """Send nothing for the fault's duration; without one, until the client disconnects."""
    await engine.clock.sleep(FOREVER if fault.value is None else fault.value)
