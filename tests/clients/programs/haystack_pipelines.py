import os

from haystack.components.embedders import OpenAITextEmbedder
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import Tool
from reporting import CHAT_MODEL, EMBEDDING_MODEL, SCHEMA, is_missing_model, report

base = os.environ["OPENAI_BASE_URL"]
user = [ChatMessage.from_user("Hello!")]


def generator(model=CHAT_MODEL, **more):
    return OpenAIChatGenerator(model=model, api_base_url=base, max_retries=0, **more)


def chat():
    assert generator().run(user)["replies"][0].text


def stream():
    pieces = []
    generator(streaming_callback=pieces.append).run(user)
    assert len(pieces) > 1


def tools():
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    made = Tool(
        name="weather", description="The weather of a city.", parameters=parameters, function=lambda city: "rain"
    )
    answer = generator(tools=[made], generation_kwargs={"tool_choice": "required"}).run(user)["replies"][0]
    assert set(answer.tool_calls[0].arguments) == {"city"}


def json_schema():
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}
    assert "population" in generator(generation_kwargs={"response_format": form}).run(user)["replies"][0].text


def embeddings():
    made = OpenAITextEmbedder(model=EMBEDDING_MODEL, api_base_url=base)
    assert len(made.run("a")["embedding"]) > 10


def errors():
    try:
        generator("nope").run(user)
    except Exception as error:
        return is_missing_model(error)
    raise AssertionError("no error")


report(
    "haystack-ai", chat=chat, stream=stream, tools=tools, json_schema=json_schema, embeddings=embeddings, errors=errors
)
