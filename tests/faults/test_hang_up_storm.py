"""A storm of clients that reset their connections: places, reservations and requests in flight are all given back."""

import asyncio
import json
import random
import socket
import struct
from typing import Any

import pytest
import yaml
from tests.faults.client import Shape, ask
from tests.faults.stack import Key, Stack, until

from quarterdeck.settings.limits import Limits

pytestmark = pytest.mark.faults

CLIENTS, HANG_UPS = 8, 60
PLACES = 4
QUEUE = "queue: {max_waiting: 64, max_wait_seconds: 20}\n"


@pytest.mark.parametrize("queue", ["", QUEUE], ids=["no queue", "a queue"])
async def test_after_a_storm_of_resets_every_place_is_free(stack: Stack, queue: str) -> None:
    config = yaml.safe_load(stack.configuration() + queue)
    for model in config["models"]:
        for endpoint in model["endpoints"]:
            endpoint["max_running"] = PLACES
    await stack.configure(yaml.safe_dump(config))
    key = await stack.key(f"storm{len(queue)}", Limits(concurrent_requests=64))
    chance = random.Random(len(queue))
    await asyncio.gather(*[_storm(stack, key, random.Random(chance.random())) for _ in range(CLIENTS)])
    await until(lambda: stack.under_way() == 0, seconds=5)
    await until(lambda: stack.a.running() + stack.b.running() == 0, seconds=5)
    async with stack.client(key) as client:
        answers = await asyncio.gather(*[ask(client, Shape("chat"), "mixed-one") for _ in range(PLACES)])
        assert [answer.outcome for answer in answers] == ["ok"] * PLACES
    await stack.all_settled()


async def _storm(stack: Stack, key: Key, chance: random.Random) -> None:
    for _ in range(HANG_UPS):
        asked: dict[str, Any] = {"model": "mixed-one", "messages": [{"role": "user", "content": "hi"}]}
        asked |= {"stream": chance.random() < 0.8, "max_tokens": 5, "ignore_eos": True}
        body = json.dumps(asked).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key.secret}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.gateway.port)
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.write(head.encode() + body)
        await asyncio.sleep(chance.uniform(0.012, 0.09))
        writer.transport.abort()
        del reader
