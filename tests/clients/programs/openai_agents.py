import asyncio

from agents import Agent, AsyncOpenAI, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from pydantic import BaseModel
from reporting import CHAT_MODEL, is_missing_model, report

set_tracing_disabled(True)


class City(BaseModel):
    name: str
    population: int


def model(name=CHAT_MODEL):
    return OpenAIChatCompletionsModel(name, AsyncOpenAI(max_retries=0))


def chat():
    assert Runner.run_sync(Agent("a", model=model()), "Hello!").final_output


def stream():
    async def pieces():
        run = Runner.run_streamed(Agent("a", model=model()), "Hello!")
        return [event async for event in run.stream_events() if event.type == "raw_response_event"]

    assert len(asyncio.run(pieces())) > 2


def tools():
    called = []

    @function_tool
    def weather(city: str) -> str:
        """The weather of a city."""
        called.append(city)
        return "rain"

    Runner.run_sync(Agent("a", model=model(), tools=[weather]), "What is the weather in Paris?")
    assert called


def json_schema():
    assert isinstance(Runner.run_sync(Agent("a", model=model(), output_type=City), "Paris").final_output, City)


def errors():
    try:
        Runner.run_sync(Agent("a", model=model("nope")), "Hello!")
    except Exception as error:
        return is_missing_model(error)
    raise AssertionError("no error")


report("openai-agents", chat=chat, stream=stream, tools=tools, json_schema=json_schema, errors=errors)
