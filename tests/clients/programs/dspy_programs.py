import asyncio
import json

import dspy
from reporting import CHAT_MODEL, EMBEDDING_MODEL, SCHEMA, is_missing_model, report

lm = dspy.LM(f"openai/{CHAT_MODEL}", temperature=0, cache=False, num_retries=0)
dspy.configure(lm=lm)


def chat():
    assert lm("Hello!")[0]


def json_schema():
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}
    assert set(json.loads(lm("Paris", response_format=form)[0])) == {"name", "population"}


def stream():
    async def pieces():
        program = dspy.streamify(dspy.Predict("question -> answer"))
        return [piece async for piece in program(question="Hello!") if not isinstance(piece, dspy.Prediction)]

    with dspy.context(adapter=dspy.JSONAdapter()):
        assert len(asyncio.run(pieces())) > 1


def embeddings():
    assert len(dspy.Embedder(f"openai/{EMBEDDING_MODEL}", caching=False)(["a", "b"])) == 2


def errors():
    try:
        dspy.LM("openai/nope", cache=False, num_retries=0)("Hello!")
    except Exception as error:
        return is_missing_model(error)
    raise AssertionError("no error")


report("dspy", chat=chat, stream=stream, json_schema=json_schema, embeddings=embeddings, errors=errors)
