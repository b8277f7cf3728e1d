"""The engine of an offline run is started again where it ends. The simulator stands in vLLM's place."""

import asyncio
import os
import signal
import sys

import pytest
from tests.servers import wait_until

from quarterdeck import processes
from quarterdeck.engine.offline.engine_server import EngineFailedError, EngineServer, ServerCommand, vllm_words
from quarterdeck.engine.offline.line_executor import EngineLostError

CHAT = b'{"model": "chat", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}'
WORDS = ("-m", "quarterdeck.simulator", "--model", "chat", "--port", "{port}")


def a_server(*words: str) -> EngineServer:
    return EngineServer(sys.executable, ServerCommand((*WORDS, *words), {}), "/v1/chat/completions")


def test_arguments_are_words_of_vllms_command_line() -> None:
    arguments = {
        "max_model_len": 2048,
        "enforce_eager": True,
        "enable_prefix_caching": False,
        "quantization": None,
        "rope_scaling": {"factor": 2},
    }
    words = vllm_words("/models/m", ("m", "alias"), arguments)
    assert words[2:7] == ("--model", "/models/m", "--served-model-name", "m", "alias")
    assert words[-6:] == (
        *("--max-model-len", "2048", "--enforce-eager", "--no-enable-prefix-caching"),
        *("--rope-scaling", '{"factor": 2}'),
    )


async def test_requests_are_answered_also_after_the_engine_was_killed() -> None:
    server = a_server()
    await asyncio.to_thread(server.start)
    try:
        assert (await server.post(CHAT)).status == 200
        (child,) = [each for each in processes.descendants(os.getpid()) if each.pid == server.pid]
        os.kill(child.pid, signal.SIGKILL)
        await asyncio.to_thread(wait_until, lambda: not processes.is_alive(child.pid), seconds=60)
        for _ in range(10):
            try:
                answer = await server.post(CHAT)
                break
            except EngineLostError:
                continue
        assert answer.status == 200 and server.pid != child.pid
    finally:
        await asyncio.to_thread(server.stop)
    assert not processes.is_alive(server.pid)


async def test_an_engine_that_does_not_start_says_why() -> None:
    server = a_server("--no-such-option", "1")
    with pytest.raises(EngineFailedError, match="no-such-option"):
        await asyncio.to_thread(server.start)
    server.stop()


async def test_an_engine_that_ends_again_and_again_is_given_up() -> None:
    server = EngineServer(sys.executable, ServerCommand(("-c", "print('out of memory')"), {}), "/")
    for _ in range(5):
        with pytest.raises(EngineFailedError, match="out of memory"):
            await asyncio.to_thread(server.start)
    server.stop()
