"""instructor: an answer as a Pydantic model. `pip install instructor`, `eval "$(quarterdeck env)"`."""

import os

import instructor
from openai import OpenAI
from pydantic import BaseModel


class City(BaseModel):
    name: str
    population: int


client = instructor.from_openai(OpenAI(), mode=instructor.Mode.RESPONSES_TOOLS)
city = client.responses.create(
    model=os.environ.get("MODEL", "smollm2-135m-instruct"),
    input="Paris has two million inhabitants.",
    response_model=City,
)
print(type(city).__name__, city)
