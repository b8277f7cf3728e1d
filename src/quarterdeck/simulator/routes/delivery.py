"""Sending an answer token by token, or whole, and doing on the way what the request's faults ask for."""

from msgspec.json import encode

from quarterdeck.simulator.client_connection import Exchange
from quarterdeck.simulator.engine import Engine
from quarterdeck.simulator.errors import Refusal
from quarterdeck.simulator.faults import AT_TOKEN, Fault, Faults
from quarterdeck.simulator.protocol.answers import DONE, Answer, event
from quarterdeck.simulator.scheduling.decoding import Decoding

PLAIN_STRIDE = 16
"""A plain answer looks at the clock once in so many tokens: nobody sees them come."""

OUT_OF_MEMORY = 137
"""The exit code of a process that the kernel killed."""

GARBAGE = b'data: {"id":"chatcmpl-garbage","object":"chat.comp\n\n'


def failure() -> Refusal:
    """What vLLM says of a request that failed inside the engine."""
    return Refusal("Internal server error (simulated)", status=500, type="InternalServerError")


async def stream(exchange: Exchange, engine: Engine, decoding: Decoding, answer: Answer, faults: Faults) -> None:
    points = sorted((fault for kind, fault in faults.items() if kind in AT_TOKEN), key=lambda fault: fault.token)
    if "malformed" in faults:
        points.insert(0, Fault("garbage"))
    await exchange.open_stream()
    await decoding.begin()
    sent = 0
    opening = answer.opening()
    while not decoding.finished():
        done = await decoding.advance()
        while points and points[0].token < done:
            fault = points.pop(0)
            before = answer.steps(sent, fault.token)
            if sent or before:
                before = opening + before
                opening = b""
            sent = max(sent, fault.token)
            rest = opening + answer.steps(sent, sent + 1)
            if not await do_fault(exchange, engine, fault, before, rest):
                return
        events = opening + answer.steps(sent, done)
        opening, sent = b"", done
        if decoding.finished() and not points:
            decoding.close()
            await exchange.end_stream(events + answer.closing() + DONE)
            return
        await exchange.write(events)
    for fault in points:  # an answer shorter than the fault's place: before its end, then
        if not await do_fault(exchange, engine, fault, b"", answer.closing() + DONE):
            return
    decoding.close()
    await exchange.end_stream(answer.closing() + DONE)


async def do_fault(exchange: Exchange, engine: Engine, fault: Fault, before: bytes, after: bytes) -> bool:
    """Send what came before, then do it; whether the stream goes on. `after` is what would have come next."""
    engine.faults.count(fault.kind)
    if fault.kind == "error":
        await exchange.end_stream(before + event(failure().body()) + DONE)
        return False
    if fault.kind == "garbage":
        await exchange.write(before + GARBAGE)
        return True
    if fault.kind == "huge":
        size = 1_000_000 if fault.value is None else int(fault.value)
        choice = {"index": 0, "delta": {"content": "x" * size}, "logprobs": None, "finish_reason": None}
        chunk = {"id": "chatcmpl-huge", "object": "chat.completion.chunk", "created": engine.created}
        await exchange.write(before + event(encode(chunk | {"model": engine.config.model, "choices": [choice]})))
        return True
    if before:
        await exchange.write(before)
    if fault.kind == "stall":
        await silence(exchange, engine, fault)
        return True
    if fault.kind == "crash":
        engine.exit_process(OUT_OF_MEMORY)
        return False
    await exchange.cut(reset=fault.kind == "reset", half=after[: len(after) // 2])
    return False


async def plain(exchange: Exchange, engine: Engine, decoding: Decoding, answer: Answer, faults: Faults) -> None:
    await decoding.begin()
    while not decoding.finished():
        await decoding.advance(PLAIN_STRIDE)
        for kind in ("crash", "stall"):
            fault = faults.get(kind)
            if fault is not None and (decoding.done >= fault.token or decoding.finished()):
                engine.faults.count(kind)
                if kind == "crash":
                    engine.exit_process(OUT_OF_MEMORY)
                    return
                await silence(exchange, engine, fault)
                faults = {name: each for name, each in faults.items() if name != kind}
    decoding.close()
    await send(exchange, engine, answer.whole(), faults)


async def send(exchange: Exchange, engine: Engine, body: bytes, faults: Faults) -> None:
    """A plain answer, or what a fault makes of it. Raises Refusal."""
    for kind in ("error", "malformed", "garbage", "wrong-length", "cut", "reset", "huge"):
        if kind in faults:
            engine.faults.count(kind)
    if "error" in faults:
        raise failure()
    if "malformed" in faults or "garbage" in faults:
        await exchange.answer(body[: len(body) // 2])
    elif "wrong-length" in faults:
        await exchange.answer_short(body, 100)
    elif "cut" in faults or "reset" in faults:
        await exchange.answer_half(body, reset="reset" in faults)
    elif "huge" in faults:
        size = 1_000_000 if faults["huge"].value is None else int(faults["huge"].value)
        await exchange.answer(body[:-1] + b',"padding":"' + b"x" * size + b'"}')
    else:
        await exchange.answer(body)


async def silence(exchange: Exchange, engine: Engine, fault: Fault) -> None:
    """Nothing for a while; without an end, until the client goes."""
    await engine.clock.sleep(86400.0 if fault.value is None else fault.value)
