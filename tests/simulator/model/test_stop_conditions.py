from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.simulator.model.stop_conditions import StopConditions, generate_output
from quarterdeck.simulator.model.text_generator import replay_tokens
from quarterdeck.simulator.model.tokenizer import split, token_id

TEXT = "One two three. Four five six."


def test_a_recited_text_ends_by_itself() -> None:
    written = generate_output(replay_tokens(TEXT, repeat=False), StopConditions(100))
    assert (written.text, written.finish_reason) == (TEXT, "stop")


def test_the_last_token_allowed_is_the_end() -> None:
    written = generate_output(replay_tokens(TEXT, repeat=False), StopConditions(3))
    assert (len(written.pieces), written.finish_reason) == (3, "length")


def test_told_to_go_on_an_echo_repeats_and_a_finished_object_does_not() -> None:
    assert len(generate_output(replay_tokens(TEXT, repeat=True), StopConditions(50, ignore_eos=True)).pieces) == 50
    assert generate_output(replay_tokens("{}", repeat=False), StopConditions(50, ignore_eos=True)).text == "{}"


def test_the_least_number_of_tokens_passes_over_an_end() -> None:
    assert len(generate_output(replay_tokens("Aye.", repeat=True), StopConditions(50, min_tokens=7)).pieces) == 8


def test_a_stop_string_ends_before_itself() -> None:
    written = generate_output(replay_tokens(TEXT, repeat=False), StopConditions(100, stop=("Four",)))
    assert (written.text, written.finish_reason, written.stop_reason) == ("One two three. ", "stop", "Four")


def test_a_stop_string_may_be_kept() -> None:
    conditions = StopConditions(100, stop=("ee. Fo",), include_stop=True)
    assert generate_output(replay_tokens(TEXT, repeat=False), conditions).text == "One two three. Fo"


def test_the_first_of_several_stop_strings_counts() -> None:
    assert (
        generate_output(replay_tokens(TEXT, repeat=False), StopConditions(100, stop=("six", "two"))).stop_reason
        == "two"
    )


def test_a_stop_token_ends() -> None:
    written = generate_output(
        replay_tokens(TEXT, repeat=False), StopConditions(100, stop_token_ids=frozenset({token_id(" three")}))
    )
    assert (written.text, written.stop_reason) == ("One two", token_id(" three"))


@given(st.text(min_size=1), st.text(min_size=1, max_size=3))
def test_an_answer_never_holds_its_stop_string(text: str, stop: str) -> None:
    written = generate_output(replay_tokens(text, repeat=False), StopConditions(10_000, stop=(stop,)))
    assert stop not in written.text
    assert written.text == text.partition(stop)[0]
    assert len(split(written.text)) == len(written.pieces)
