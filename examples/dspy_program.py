"""DSPy: a program on /v1/responses. `pip install dspy`, `eval "$(quarterdeck env)"`."""

import os

import dspy

model = os.environ.get("MODEL", "smollm2-135m-instruct")
dspy.configure(
    lm=dspy.LM(
        f"openai/{model}",
        model_type="responses",
        api_base=os.environ["OPENAI_BASE_URL"],
        api_key=os.environ["OPENAI_API_KEY"],
        cache=False,
    )
)
answer = dspy.settings.lm("Name three ships.")
print("answer:", answer[0])
