from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.simulator.model.stop_conditions import StopConditions, generate_output
from quarterdeck.simulator.model.text_generator import END_OF_TEXT, WORDS, generate_tokens, seed_of
from quarterdeck.simulator.model.tokenizer import split


def test_a_word_is_one_token() -> None:
    assert len(set(WORDS)) == len(WORDS) == 256
    assert all(len(split(" " + word)) == 1 for word in WORDS)


@given(st.text(max_size=40), st.integers(0, 80))
def test_what_comes_next_depends_on_the_text_alone(prompt: str, place: int) -> None:
    start = seed_of(0)
    said = [piece for piece in islice(generate_tokens(prompt, start), 100) if piece != END_OF_TEXT]
    head, tail = said[:place], said[place:]
    resumed = (piece for piece in generate_tokens(prompt + "".join(head), start) if piece != END_OF_TEXT)
    assert list(islice(resumed, len(tail))) == tail


@given(st.text(max_size=40), st.integers(1, 200), st.booleans())
def test_an_answer_has_as_many_tokens_as_its_text(prompt: str, most: int, ignore_end: bool) -> None:
    written = generate_output(generate_tokens(prompt, 0), StopConditions(most, ignore_eos=ignore_end))
    assert split(written.text) == written.pieces
    assert len(written.pieces) <= most


def test_answers_end_after_some_sentences() -> None:
    lengths = [
        len(generate_output(generate_tokens(f"prompt {number}", 0), StopConditions(4096)).pieces)
        for number in range(300)
    ]
    assert 15 < sum(lengths) / len(lengths) < 120
    assert max(lengths) < 1000


def test_another_prompt_and_another_seed_give_other_words() -> None:
    answers = {
        generate_output(generate_tokens(prompt, seed_of(seed)), StopConditions(12)).text
        for prompt in ("a", "b", "c")
        for seed in (1, 2)
    }
    assert len(answers) == 6
