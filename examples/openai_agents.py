"""OpenAI Agents SDK: an agent with a function of its own. `pip install openai-agents`, `eval "$(quarterdeck env)"`."""

import os

from agents import Agent, Runner, function_tool, set_tracing_disabled

set_tracing_disabled(True)  # else traces are sent to OpenAI


@function_tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"It rains in {city}."


agent = Agent(
    name="Assistant",
    instructions="Answer in one sentence.",
    model=os.environ.get("MODEL", "smollm2-135m-instruct"),
    tools=[weather],
)
result = Runner.run_sync(agent, "What is the weather in Oslo?")
print([type(item).__name__ for item in result.new_items])
print(result.final_output)
