import instructor
from openai import OpenAI
from pydantic import BaseModel
from reporting import CHAT_MODEL, is_missing_model, report

user = [{"role": "user", "content": "Paris"}]


class City(BaseModel):
    name: str
    population: int


def client(mode):
    return instructor.from_openai(OpenAI(max_retries=0), mode=mode)


def tools():
    answer = client(instructor.Mode.TOOLS).create(model=CHAT_MODEL, messages=user, response_model=City)
    assert isinstance(answer, City)


def json_schema():
    answer = client(instructor.Mode.JSON_SCHEMA).create(model=CHAT_MODEL, messages=user, response_model=City)
    assert isinstance(answer, City)


def stream():
    parts = list(client(instructor.Mode.TOOLS).create_partial(model=CHAT_MODEL, messages=user, response_model=City))
    assert parts[-1].population is not None


def errors():
    try:
        client(instructor.Mode.TOOLS).create(model="nope", messages=user, response_model=City, max_retries=1)
    except Exception as error:
        return is_missing_model(error)
    raise AssertionError("no error")


report("instructor", stream=stream, tools=tools, json_schema=json_schema, errors=errors)
