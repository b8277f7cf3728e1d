"""A model quantized to four bits on a CPU, by one setting."""

from tests.e2e.stack import Stack


def test_a_quantized_model_answers(quantized: Stack) -> None:
    answer = quantized.client().chat.completions.create(
        model="quantized",
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        temperature=0,
        max_tokens=40,
    )
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0
