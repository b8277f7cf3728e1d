"""Request ids of a response's engine calls."""

from itertools import count
from typing import Any, cast

from quarterdeck.inference.call import Head, Operation
from quarterdeck.resources.responses.engine_calls import call_request_id

CALLS = [(turn, attempt) for turn in range(3) for attempt in range(2)]


def names(*, repeats: bool) -> list[str]:
    head = Head("req_1", Operation.CHAT, cast(Any, None), 0.0, repeats=(lambda: True) if repeats else None)
    numbers = count()
    return [call_request_id(head, turn, attempt, lambda: f"new_{next(numbers)}") for turn, attempt in CALLS]


def test_a_request_that_is_made_again_makes_its_calls_with_the_same_ids() -> None:
    first = names(repeats=True)
    assert first == names(repeats=True)
    assert len(set(first)) == len(CALLS)
    assert first[0] == "req_1"
    assert not any(name.startswith("new_") for name in first)


def test_others_have_new_ids_after_the_first() -> None:
    assert names(repeats=False) == ["req_1", *(f"new_{number}" for number in range(len(CALLS) - 1))]
