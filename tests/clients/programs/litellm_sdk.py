import json

import litellm
from reporting import CHAT_MODEL, EMBEDDING_MODEL, LONG, SCHEMA, TOOL, is_missing_model, report

user = [{"role": "user", "content": "Hello!"}]


def ask(model=CHAT_MODEL, **more):
    return litellm.completion(model=f"openai/{model}", messages=user, num_retries=0, **more)


def chat():
    assert ask(temperature=0).choices[0].message.content


def stream():
    assert sum(bool(chunk.choices[0].delta.content) for chunk in ask(stream=True)) > 1


def tools():
    (call,) = ask(tools=[TOOL], tool_choice="required").choices[0].message.tool_calls
    assert set(json.loads(call.function.arguments)) == {"city"}


def json_schema():
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}
    assert "population" in ask(response_format=form).choices[0].message.content


def embeddings():
    assert len(litellm.embedding(model=f"openai/{EMBEDDING_MODEL}", input=["a", "b"]).data) == 2


def errors():
    try:
        ask("nope")
    except litellm.NotFoundError as error:
        return is_missing_model(error)
    raise AssertionError("no error")


def cancel():
    messages = [{"role": "user", "content": LONG}]
    chunks = litellm.completion(model=f"openai/{CHAT_MODEL}", messages=messages, stream=True, max_tokens=1000)
    for _ in zip(range(3), chunks, strict=False):
        pass
    chunks.completion_stream.close()


report(
    "litellm",
    chat=chat,
    stream=stream,
    tools=tools,
    json_schema=json_schema,
    embeddings=embeddings,
    errors=errors,
    cancel=cancel,
)
