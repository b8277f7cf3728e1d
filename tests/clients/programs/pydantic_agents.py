import asyncio

import pydantic_ai as library
from pydantic import BaseModel
from pydantic_ai.models.openai import OpenAIChatModel
from reporting import CHAT_MODEL, EMBEDDING_MODEL, LONG, is_missing_model, report

model = OpenAIChatModel(CHAT_MODEL)


class City(BaseModel):
    name: str
    population: int


def chat():
    assert library.Agent(model).run_sync("Hello!").output


def stream():
    async def pieces():
        async with library.Agent(model).run_stream("Hello!") as answer:
            return [piece async for piece in answer.stream_text(delta=True, debounce_by=None)]

    assert len(asyncio.run(pieces())) > 1


def tools():
    called = []
    agent = library.Agent(model)

    @agent.tool_plain
    def weather(city: str) -> str:
        """The weather of a city."""
        called.append(city)
        return "rain"

    agent.run_sync("What is the weather in Paris?")
    assert called


def json_schema():
    agent = library.Agent(model, output_type=library.NativeOutput(City))
    assert isinstance(agent.run_sync("Paris").output, City)


def embeddings():
    result = library.Embedder(f"openai:{EMBEDDING_MODEL}").embed_documents_sync(["a", "b"])
    assert len(result.embeddings) == 2


def errors():
    try:
        library.Agent(OpenAIChatModel("nope")).run_sync("Hello!")
    except Exception as error:
        return is_missing_model(error)
    raise AssertionError("no error")


def cancel():
    async def stop():
        async with library.Agent(model, model_settings={"max_tokens": 1000}).run_stream(LONG) as answer:
            async for _ in answer.stream_text(delta=True, debounce_by=None):
                return

    asyncio.run(stop())


report(
    "pydantic-ai-slim",
    chat=chat,
    stream=stream,
    tools=tools,
    json_schema=json_schema,
    embeddings=embeddings,
    errors=errors,
    cancel=cancel,
)
