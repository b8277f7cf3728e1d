"""The platform under Azure's client of the official SDK, and what agents send back of the SDK's objects."""

import gzip
import json
from collections.abc import Iterator

import httpx
import openai
import pytest
from tests.contract.platform import Platform
from tests.contract.questions import ASK

KEY = "sk-qd-user"
TOOL = {"type": "function", "function": {"name": "f", "description": None, "parameters": {"type": "object"}}}


@pytest.fixture
def azure(platform: Platform) -> Iterator[openai.AzureOpenAI]:
    with openai.AzureOpenAI(
        azure_endpoint=f"http://127.0.0.1:{platform.gateway.port}", api_key=KEY, api_version="2024-10-21", max_retries=0
    ) as client:
        yield client


def test_azures_client_chats_streams_embeds_and_lists(azure: openai.AzureOpenAI) -> None:
    assert azure.chat.completions.create(**ASK).choices[0].message.content
    assert list(azure.chat.completions.create(**ASK, stream=True))[-1].choices[0].finish_reason
    assert len(azure.embeddings.create(model="org/emb", input=["a", "b"]).data) == 2
    assert "chat" in [model.id for model in azure.models.list()]


def test_the_deployment_of_a_client_is_the_model_whatever_it_names(platform: Platform) -> None:
    """LangChain's AzureOpenAIEmbeddings name text-embedding-ada-002 in each body."""
    with openai.AzureOpenAI(
        azure_endpoint=f"http://127.0.0.1:{platform.gateway.port}/",
        azure_deployment="org/emb",
        api_key=KEY,
        api_version="x",
        max_retries=0,
    ) as client:
        assert client.embeddings.create(model="text-embedding-ada-002", input="a").data


def test_a_deployment_that_does_not_exist_is_the_sdks_not_found(azure: openai.AzureOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        azure.chat.completions.create(**{**ASK, "model": "nope"})
    assert caught.value.code == "model_not_found"


def test_an_answer_may_be_sent_back_as_it_is_dumped(client: openai.OpenAI) -> None:
    message = client.chat.completions.create(**ASK).choices[0].message
    history = [*ASK["messages"], message.model_dump(), {"role": "user", "content": "And?", "name": None}]
    assert client.chat.completions.create(**{**ASK, "messages": history}).choices[0].message.content


def test_a_tool_call_may_be_sent_back_as_it_is_dumped(client: openai.OpenAI) -> None:
    asked = {**ASK, "tools": [TOOL], "max_tokens": 100}
    message = client.chat.completions.create(**asked, tool_choice="required").choices[0].message
    assert message.tool_calls
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "4", "name": None}
    history = [*ASK["messages"], message.model_dump(), result]
    assert client.chat.completions.create(**{**asked, "messages": history}).choices[0].message.content


def test_an_agent_without_tools_may_say_so(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**ASK, tools=[], tool_choice="auto", parallel_tool_calls=False)
    assert answer.choices[0].message.content


def test_what_the_engine_refuses_is_one_sentence(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{**ASK, "messages": [{"role": "user", "content": None}]})
    assert (caught.value.param, caught.value.code) == ("messages[0].content", "invalid_type")
    assert "\n" not in caught.value.body["message"]  # type: ignore[index]


def test_a_compressed_request_is_answered(platform: Platform) -> None:
    body = gzip.compress(json.dumps(ASK).encode())
    url = f"http://127.0.0.1:{platform.gateway.port}/v1/chat/completions"
    answer = httpx.post(url, content=body, headers={"x-api-key": KEY, "content-encoding": "gzip"}, trust_env=False)
    assert answer.json()["object"] == "chat.completion"
