from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel
from reporting import CHAT_MODEL, EMBEDDING_MODEL, LONG, is_missing_model, report

model = ChatOpenAI(model=CHAT_MODEL, temperature=0, max_retries=0)


class City(BaseModel):
    name: str
    population: int


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return "rain"


def chat():
    answer = model.invoke("Hello!")
    assert answer.content
    assert answer.usage_metadata["output_tokens"] > 0


def stream():
    assert sum(bool(chunk.content) for chunk in model.stream("Hello!")) > 1


def tools():
    answer = model.bind_tools([weather], tool_choice="weather").invoke("Hello!")
    assert set(answer.tool_calls[0]["args"]) == {"city"}


def json_schema():
    assert isinstance(model.with_structured_output(City, method="json_schema").invoke("Paris"), City)


def embeddings():
    made = OpenAIEmbeddings(model=EMBEDDING_MODEL, check_embedding_ctx_length=False)
    assert len(made.embed_documents(["a", "b"])) == 2


def errors():
    try:
        ChatOpenAI(model="nope", max_retries=0).invoke("Hello!")
    except Exception as error:
        return is_missing_model(error)
    raise AssertionError("no error")


def cancel():
    chunks = model.bind(max_tokens=1000).stream(LONG)
    for _ in zip(range(3), chunks, strict=False):
        pass
    chunks.close()


report(
    "langchain-openai",
    chat=chat,
    stream=stream,
    tools=tools,
    json_schema=json_schema,
    embeddings=embeddings,
    errors=errors,
    cancel=cancel,
)
