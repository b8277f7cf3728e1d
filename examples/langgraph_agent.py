"""LangChain and LangGraph: an agent with a tool. `pip install langchain-openai langgraph`, `quarterdeck env`."""

import os

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"It rains in {city}."


llm = ChatOpenAI(model=os.environ.get("MODEL", "smollm2-135m-instruct"), use_responses_api=True)
model = llm.bind_tools([weather])


def assistant(state: MessagesState) -> dict:
    return {"messages": [model.invoke(state["messages"])]}


graph = StateGraph(MessagesState)
graph.add_node("assistant", assistant)
graph.add_node("tools", ToolNode([weather]))
graph.add_edge(START, "assistant")
graph.add_conditional_edges("assistant", tools_condition)
graph.add_edge("tools", "assistant")
result = graph.compile().invoke({"messages": [("user", "What is the weather in Oslo?")]})
print([type(message).__name__ for message in result["messages"]])
print(result["messages"][-1].text)
