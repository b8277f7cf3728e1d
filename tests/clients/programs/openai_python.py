import json

import openai
from openai import OpenAI
from reporting import CHAT_MODEL, EMBEDDING_MODEL, LONG, SCHEMA, TOOL, is_missing_model, report

client = OpenAI(max_retries=0)
user = [{"role": "user", "content": "Hello!"}]


def chat():
    answer = client.chat.completions.create(model=CHAT_MODEL, messages=user, temperature=0)
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens > 0


def stream():
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(model=CHAT_MODEL, messages=user, stream=True, stream_options=options))
    assert sum(bool(chunk.choices and chunk.choices[0].delta.content) for chunk in chunks) > 1
    assert chunks[-1].usage.completion_tokens > 0


def tools():
    choice = {"type": "function", "function": {"name": "weather"}}
    answer = client.chat.completions.create(model=CHAT_MODEL, messages=user, tools=[TOOL], tool_choice=choice)
    (call,) = answer.choices[0].message.tool_calls
    assert set(json.loads(call.function.arguments)) == {"city"}
    messages = [*user, answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    assert client.chat.completions.create(model=CHAT_MODEL, messages=messages, tools=[TOOL]).choices


def json_schema():
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}
    answer = client.chat.completions.create(model=CHAT_MODEL, messages=user, response_format=form)
    assert set(json.loads(answer.choices[0].message.content)) == {"name", "population"}


def embeddings():
    data = client.embeddings.create(model=EMBEDDING_MODEL, input=["a", "b"]).data
    assert len(data) == 2
    assert len(data[0].embedding) > 10


def errors():
    try:
        client.chat.completions.create(model="nope", messages=user)
    except openai.NotFoundError as error:
        assert error.code == "model_not_found"
        is_missing_model(error)
        return
    raise AssertionError("no error")


def cancel():
    messages = [{"role": "user", "content": LONG}]
    with client.chat.completions.create(model=CHAT_MODEL, messages=messages, stream=True, max_tokens=1000) as chunks:
        for _ in zip(range(3), chunks, strict=False):
            pass


report(
    "openai",
    chat=chat,
    stream=stream,
    tools=tools,
    json_schema=json_schema,
    embeddings=embeddings,
    errors=errors,
    cancel=cancel,
)
