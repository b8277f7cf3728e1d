from hypothesis import given
from hypothesis import strategies as st
from tests.simulator.harness import token_ids

from quarterdeck.simulator.model.tokenizer import SPECIAL, decode, piece_of, split

texts = st.text() | st.lists(st.sampled_from([*SPECIAL, " word", "\n", "<|", "longerword", "日本", " 😀"])).map("".join)


@given(texts)
def test_a_text_comes_back_from_its_ids(text: str) -> None:
    assert decode(token_ids(text)) == text


@given(texts, st.data())
def test_a_cut_between_two_tokens_changes_neither_side(text: str, data: st.DataObject) -> None:
    pieces = split(text)
    place = data.draw(st.integers(0, len(pieces)))
    assert split("".join(pieces[:place])) == pieces[:place]
    assert split("".join(pieces[place:])) == pieces[place:]


@given(texts)
def test_ids_are_exact_in_json_everywhere(text: str) -> None:
    assert all(0 <= token < 2**53 for token in token_ids(text))


@given(st.integers(0, 2**63 - 1))
def test_every_number_has_a_text(token: int) -> None:
    assert isinstance(piece_of(token), str)


def test_english_has_some_four_letters_a_token() -> None:
    text = "The harbour master writes down every ship that enters, and asks nothing of those that leave."
    assert 3 <= len(text) / len(token_ids(text)) <= 5


def test_a_special_token_is_one_token() -> None:
    assert token_ids("ready!<|im_end|>\n")[-2:] == [2, *token_ids("\n")]
