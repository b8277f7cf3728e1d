import json

import openai
from openai import OpenAI
from reporting import CHAT_MODEL, EMBEDDING_MODEL, LONG, TOOL, is_missing_model, report

client = OpenAI(max_retries=0)
user = [{"role": "user", "content": "Hello!"}]


def chat():
    assert client.chat.completions.create(model=CHAT_MODEL, messages=user).choices[0].message.content


def stream():
    chunks = list(client.chat.completions.create(model=CHAT_MODEL, messages=user, stream=True))
    assert sum(bool(chunk.choices[0].delta.content) for chunk in chunks) > 1


def tools():
    choice = {"type": "function", "function": {"name": "weather"}}
    answer = client.chat.completions.create(model=CHAT_MODEL, messages=user, tools=[TOOL], tool_choice=choice)
    assert set(json.loads(answer.choices[0].message.tool_calls[0].function.arguments)) == {"city"}


def embeddings():
    assert len(client.embeddings.create(model=EMBEDDING_MODEL, input=["a", "b"]).data) == 2


def errors():
    try:
        client.chat.completions.create(model="nope", messages=user)
    except openai.NotFoundError as error:
        return is_missing_model(error)
    raise AssertionError("no error")


def cancel():
    messages = [{"role": "user", "content": LONG}]
    chunks = client.chat.completions.create(model=CHAT_MODEL, messages=messages, stream=True, max_tokens=1000)
    for _ in zip(range(3), chunks, strict=False):
        pass
    chunks.close()


report("openai", chat=chat, stream=stream, tools=tools, embeddings=embeddings, errors=errors, cancel=cancel)
