"""Pydantic AI: an agent with a tool. `pip install pydantic-ai-slim[openai]`, `eval "$(quarterdeck env)"`."""

import os

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIResponsesModel

model = OpenAIResponsesModel(os.environ.get("MODEL", "smollm2-135m-instruct"))
agent = Agent(model, instructions="Answer in one sentence.")


@agent.tool_plain
def weather(city: str) -> str:
    """The weather of a city."""
    return f"It rains in {city}."


result = agent.run_sync("What is the weather in Oslo?")
print([type(message).__name__ for message in result.all_messages()])
print(result.output)
