import os

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel
from reporting import CHAT_MODEL, EMBEDDING_MODEL, LONG, is_missing_model, report

where = {"api_base": os.environ["OPENAI_BASE_URL"], "api_key": os.environ["OPENAI_API_KEY"], "max_retries": 0}


def llm(model=CHAT_MODEL, **more):
    return OpenAILike(model=model, is_chat_model=True, is_function_calling_model=True, **where, **more)


class City(BaseModel):
    name: str
    population: int


def weather(city: str) -> str:
    """The weather of a city."""
    return "rain"


def chat():
    assert llm().chat([ChatMessage(role="user", content="Hello!")]).message.content


def stream():
    assert sum(bool(piece.delta) for piece in llm().stream_complete("Hello!")) > 1


def tools():
    made = FunctionTool.from_defaults(weather)
    answer = llm().chat_with_tools([made], user_msg="Hello!", tool_required=True)
    (call,) = llm().get_tool_calls_from_response(answer)
    assert set(call.tool_kwargs) == {"city"}


def json_schema():
    answer = llm(should_use_structured_outputs=True).as_structured_llm(City).complete("Paris")
    assert isinstance(answer.raw, City)


def embeddings():
    made = OpenAILikeEmbedding(model_name=EMBEDDING_MODEL, **where)
    assert len(made.get_text_embedding_batch(["a", "b"])) == 2


def errors():
    try:
        llm("nope").complete("Hello!")
    except Exception as error:
        return is_missing_model(error)
    raise AssertionError("no error")


def cancel():
    pieces = llm(max_tokens=1000).stream_complete(LONG)
    for _ in zip(range(3), pieces, strict=False):
        pass
    pieces.close()


report(
    "llama-index-llms-openai-like",
    chat=chat,
    stream=stream,
    tools=tools,
    json_schema=json_schema,
    embeddings=embeddings,
    errors=errors,
    cancel=cancel,
)
