"""Names that nobody can guess and no two share."""

import re

from quarterdeck.ids import RequestIds


def test_a_request_id_holds_a_trace_id() -> None:
    assert re.fullmatch(r"req_[0-9a-f]{32}", RequestIds().next())


def test_no_two_are_equal_also_past_one_draw_of_randomness() -> None:
    one, other = RequestIds(), RequestIds()
    made = [ids.next() for _ in range(1000) for ids in (one, other)]
    assert len(set(made)) == len(made)
