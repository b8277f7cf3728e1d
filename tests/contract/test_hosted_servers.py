"""A gateway process, the real SDK, and a hosted server of another kind behind the environment's proxy."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from tests.inference.foreign.habits import GEMINI_UNKNOWN, calls, calls_without_index, role_everywhere
from tests.inference.foreign.hosted_server import TEXT, Habit, failing, serving, zipped
from tests.net.forward_proxy import ForwardProxy
from tests.net.upstream import Upstream
from tests.platform import GatewayProcess
from tests.servers import short_folder

from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore

KEY = "sk-qd-hosted"
ASKED: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hi"}]
PATH = "/v1beta/openai"
CONFIG = f"""
models:
  - name: hosted
    endpoints:
      - {{url: "http://api.hosted.example{PATH}", kind: openai, model: up, api_key_env: HOSTED_KEY}}
"""


@asynccontextmanager
async def sdk(habit: Habit, redis_url: str) -> AsyncIterator[tuple[openai.AsyncOpenAI, Upstream, ForwardProxy]]:
    """The SDK's client of a gateway whose only model is served by a server with this habit."""
    folder = short_folder()
    database_url = f"sqlite+aiosqlite:///{folder}/quarterdeck.db"
    database = Database(database_url)
    await database.migrate()
    await KeyStore(database).create(secret=KEY, name="user")
    await database.close()
    async with Upstream(serving(habit)) as hosted, ForwardProxy(hosted.port) as proxy:
        environ = {
            "QUARTERDECK_REDIS_URL": redis_url,
            "QUARTERDECK_DATABASE_URL": database_url,
            "HTTP_PROXY": proxy.url,
            "HOSTED_KEY": "sk-up",
        }
        gateway = GatewayProcess(folder, CONFIG, environ)
        gateway.start()
        try:
            async with openai.AsyncOpenAI(
                api_key=KEY, base_url=gateway.url + "/v1", max_retries=0, _strict_response_validation=True
            ) as client:
                yield client, hosted, proxy
        finally:
            await asyncio.to_thread(gateway.stop)
            shutil.rmtree(folder)


async def test_the_sdk_gets_openais_answers_of_a_server_with_many_habits(redis_url: str) -> None:
    habit = Habit(
        refuse=GEMINI_UNKNOWN,
        path=PATH + "/chat/completions",
        chunks=role_everywhere,
        headers=("content-encoding: gzip",),
        encode=zipped,
        caps=("max_tokens",),
    )
    async with sdk(habit, redis_url) as (client, hosted, proxy):
        whole = await client.chat.completions.create(
            model="hosted",
            messages=ASKED,
            max_completion_tokens=3,
            metadata={"session_id": "s", "purpose": "test"},
            user="u",
        )
        assert whole.choices[0].message.content == "".join(TEXT[:3])
        async with client.chat.completions.stream(model="hosted", messages=ASKED) as stream:
            async for _ in stream:
                pass
            final = await stream.get_final_completion()
        assert final.choices[0].message.content == "".join(TEXT)
        assert final.choices[0].message.role == "assistant"
    assert all(head.startswith(b"POST http://api.hosted.example/v1beta/openai/chat/") for head in proxy.heads)
    assert all(seen.header("authorization") == "Bearer sk-up" for seen in hosted.requests)
    assert len(hosted.requests) == 3, "one refusal taught it what to leave out"


async def test_the_sdk_joins_tool_calls_that_have_no_index(redis_url: str) -> None:
    habit = Habit(path=PATH + "/chat/completions", message=calls(), chunks=calls_without_index)
    async with (
        sdk(habit, redis_url) as (client, _, _),
        client.chat.completions.stream(model="hosted", messages=ASKED) as stream,
    ):
        final = await stream.get_final_completion()
    assert final.choices[0].finish_reason == "tool_calls"
    (call,) = final.choices[0].message.tool_calls or ()
    assert (call.id, call.function.name, call.function.arguments) == ("call_1", "look_up", '{"a": 1}')


async def test_the_caller_is_not_blamed_for_the_gateways_account(redis_url: str) -> None:
    quota = {"error": {"message": "check your plan", "type": "insufficient_quota", "code": "insufficient_quota"}}
    habit = Habit(path=PATH + "/chat/completions", refuse=failing(429, quota))
    async with sdk(habit, redis_url) as (client, _, _):
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model="hosted", messages=ASKED)
    assert (caught.value.status_code, caught.value.code) == (503, "engine_insufficient_quota")
    assert "plan" not in str(caught.value)
