"""LlamaIndex: an agent with a tool. `pip install llama-index-llms-openai`, `eval "$(quarterdeck env)"`."""

import asyncio
import os

from llama_index.core.agent.workflow import FunctionAgent, ToolCall
from llama_index.llms.openai import OpenAIResponses


def weather(city: str) -> str:
    """The weather of a city."""
    return f"It rains in {city}."


async def main() -> None:
    llm = OpenAIResponses(
        model=os.environ.get("MODEL", "smollm2-135m-instruct"),
        api_base=os.environ["OPENAI_BASE_URL"],
        context_window=8192,
    )
    agent = FunctionAgent(tools=[weather], llm=llm, system_prompt="Answer in one sentence.")
    run = agent.run("What is the weather in Oslo?")
    async for event in run.stream_events():
        if isinstance(event, ToolCall):
            print("tool:", event.tool_name, event.tool_kwargs)
    print("answer:", await run)


asyncio.run(main())
