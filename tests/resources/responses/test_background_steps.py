"""What is shown of a background response can always be gone on from: steps are stored only where that is so."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.resources.responses.background_steps import (
    BEGINNINGS,
    BOUNDARIES,
    ended_by_others,
    mapper_of,
    storable,
    turn_name,
    unfinished,
)
from quarterdeck.resources.responses.following import split
from quarterdeck.resources.responses.objects import new_response
from quarterdeck.resources.responses.replay import replay
from quarterdeck.resources.responses.requests import ResponseRequest

TEXT, THOUGHT, CALL = ["text", "a", []], ["reasoning", "h"], ["call", 0, "call_1", "f", "{}"]
TURN, PAUSE, CUT = ["turn", 0, None], ["pause"], ["cut"]
STEPS = st.lists(st.sampled_from([TEXT, THOUGHT, CALL, TURN, PAUSE, CUT]), max_size=12).map(
    lambda steps: [list(step) for step in steps]
)


def a_response() -> dict[str, Any]:
    request = ResponseRequest(model="chat", input="Hi", background=True)
    return new_response(request, "resp_1", 1_700_000_000.0, {}) | {"background": True, "status": "queued"}


@pytest.mark.parametrize(
    ("steps", "is_continuable", "count"),
    [
        ([TEXT, TEXT], True, 2),
        ([TEXT, TEXT], False, 0),
        ([THOUGHT, THOUGHT, TEXT], True, 2),  # a text after reasoning is not continued
        ([CALL], True, 0),
        ([TEXT, CALL], True, 1),
        ([CALL, TURN], False, 2),
        ([TEXT, TURN, THOUGHT, TEXT], True, 3),
        ([TEXT, PAUSE, TEXT], True, 3),
        ([], True, 0),
    ],
)
def test_only_what_can_be_gone_on_from_is_stored(steps: list[Any], is_continuable: bool, count: int) -> None:
    assert storable(steps, is_continuable=is_continuable) == count


def test_an_interrupted_turn_is_continued_begun_anew_or_not_begun() -> None:
    assert unfinished([THOUGHT, CUT, TEXT, TEXT]) == ("text", "aa")
    assert unfinished([TEXT, TURN, THOUGHT]) == ("reasoning", "")
    assert unfinished([CALL, TURN]) == ("nothing", "")
    assert unfinished([]) == ("nothing", "")
    assert unfinished([TEXT, PAUSE]) == ("text", "a")
    assert unfinished([TEXT, PAUSE, TEXT, PAUSE]) == ("text", "aa")
    assert unfinished([TEXT, PAUSE, THOUGHT]) == ("reasoning", "")
    assert unfinished([TEXT, TURN, PAUSE]) == ("nothing", "")


def test_a_repeated_engine_call_has_its_name_and_one_after_a_recorded_call_another() -> None:
    assert turn_name([TEXT]) == turn_name([]) == turn_name([THOUGHT, CUT]) == "0.0"
    assert turn_name([TEXT, PAUSE]) == "0.1"
    assert turn_name([CALL, TURN]) == "1.0"


@given(STEPS, st.booleans())
def test_what_is_stored_grows_and_never_ends_within_what_cannot_be_gone_on_from(
    steps: list[Any], is_continuable: bool
) -> None:
    stored = 0
    for count in range(len(steps) + 1):
        until = storable(steps[:count], is_continuable=is_continuable)
        assert until >= stored
        stored = until
        rest, _ = unfinished(steps[:until])
        # Before a pause there is a text only where an engine could continue it.
        assert rest in ("nothing", "reasoning") or is_continuable or PAUSE in steps


@given(STEPS, st.data())
def test_a_follower_sees_the_same_events_in_whatever_pieces_the_steps_come(steps: list[Any], data: Any) -> None:
    whole = ended_by_others(a_response(), steps, "cancelled", shows_logprobs=False)
    final = replay(whole, [list(step) for step in steps], shows_logprobs=False)
    cut = data.draw(st.integers(0, len(steps)))
    mapper = mapper_of(a_response(), shows_logprobs=False)
    live = split(mapper.queue() + mapper.begin() + mapper.feed(steps[:cut]) + mapper.feed(steps[cut:]))
    assert final[: len(live)] == live
    assert [b'"sequence_number":%d,' % number in event for number, event in enumerate(final)] == [True] * len(final)


def test_a_turn_begins_where_nothing_is_open_and_a_call_also_after_a_pause() -> None:
    assert frozenset({"turn", "listed", "cut"}) == BEGINNINGS
    assert BEGINNINGS | {"pause"} == BOUNDARIES
